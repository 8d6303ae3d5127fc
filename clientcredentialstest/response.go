package clientcredentialstest

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
)

const basicChallenge = `Basic realm="clientcredentialstest"`

// refusal is an error response of RFC 6749, Section 5.2.
type refusal struct {
	code string
	text string // contains no quote, no backslash and no secret
	rule string // the rule that the request broke; empty: none
}

var unknownClient = &refusal{code: "invalid_client", text: "client authentication failed"}

func violation(rule, text string) *refusal {
	return &refusal{code: "invalid_request", text: text, rule: rule}
}

func (r *refusal) as(code string) *refusal {
	r.code = code
	return r
}

func (r *refusal) answer() answer {
	a := answer{status: http.StatusBadRequest, body: errorBody(r.code, r.text)}
	if r.code == "invalid_client" {
		// RFC 9110, Section 15.5.2, requires a challenge in every 401. RFC 6749 asks for
		// it only if the request has an Authorization header.
		a.status, a.challenge = http.StatusUnauthorized, basicChallenge
	}
	return a
}

// answer is a response of the token endpoint, before a fault changes it.
type answer struct {
	status    int
	challenge string
	body      []byte
}

func (a answer) write(w http.ResponseWriter, r *http.Request, f Fault) {
	h := w.Header()
	h.Set("Content-Type", "application/json;charset=UTF-8")
	h.Set("Cache-Control", "no-store") // RFC 6749, Section 5.1
	if a.challenge != "" {
		h.Set("WWW-Authenticate", a.challenge)
	}
	if a.status == http.StatusNoContent || a.status == http.StatusNotModified {
		a.body = nil
	} else {
		h.Set("Content-Length", strconv.Itoa(len(a.body)))
	}
	for name, values := range f.Header {
		h[http.CanonicalHeaderKey(name)] = values
	}
	w.WriteHeader(a.status)

	body := a.body
	if f.CloseAfter != 0 {
		body = body[:min(max(f.CloseAfter, 0), len(body))]
	}
	controller := http.NewResponseController(w)
	step := max(len(body), 1)
	if f.Drip > 0 {
		step = 1
		_ = controller.Flush()
	}
	for chunk := range slices.Chunk(body, step) {
		wait(r.Context(), f.Drip)
		if _, err := w.Write(chunk); err != nil {
			return
		}
		if f.Drip > 0 {
			_ = controller.Flush()
		}
	}
	if f.CloseAfter != 0 {
		_ = controller.Flush()
		panic(http.ErrAbortHandler)
	}
}

func errorBody(code, description string) []byte {
	return encode(struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}{code, description})
}

func encode(v any) []byte {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err) // Structs of strings and numbers can always be marshaled.
	}
	return body
}
