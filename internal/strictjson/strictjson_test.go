package strictjson

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

const (
	invalid  = "it isn't valid JSON"
	noObject = "it isn't a JSON object"
	followed = "something follows it; remove that"
	repeated = "one of its members appears more than once"
)

func TestObject(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, data string
		want       map[string]string // nil: an error
		err        string
	}{
		{"empty", "{}", map[string]string{}, ""},
		{"white space", " \t\r\n{ \"a\" : [ 1 ] , \"b\":null}\n", map[string]string{"a": "[ 1 ]", "b": "null"}, ""},
		{"other letter case", `{"a":1,"A":2}`, map[string]string{"a": "1", "A": "2"}, ""},
		{"escaped name", `{"\u0061":1}`, map[string]string{"a": "1"}, ""},
		{"repeated inside a value", `{"a":{"b":1,"b":2}}`, map[string]string{"a": `{"b":1,"b":2}`}, ""},
		{"repeated", `{"a":1,"b":2,"a":1}`, nil, repeated},
		{"repeated, once escaped", `{"a":1,"\u0061":2}`, nil, repeated},
		{"repeated, once null", `{"a":1,"a":null}`, nil, repeated},
		{"no data", "", nil, invalid},
		{"text", "s3cr3t", nil, invalid},
		{"open", `{"a":1`, nil, invalid},
		{"no value", `{"a"}`, nil, invalid},
		{"trailing comma", `{"a":1,}`, nil, invalid},
		{"name that is no string", `{1:1}`, nil, invalid},
		{"no UTF-8", "{\"a\":\"\xff\"}", nil, invalid},
		{"too deep", `{"a":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + "}", nil, invalid},
		{"null", "null", nil, noObject},
		{"array", `[{"a":1}]`, nil, noObject},
		{"string", `"{}"`, nil, noObject},
		{"two objects", "{}{}", nil, followed},
		{"brace after it", "{}}", nil, followed},
		{"text after it", "{} s3cr3t", nil, followed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			members, err := Object([]byte(tc.data))
			isObject := tc.err == "" || tc.err == repeated || tc.name == "no UTF-8"
			require.Equal(t, isObject, IsObject([]byte(tc.data)))
			if tc.err != "" {
				require.EqualError(t, err, tc.err)
				require.Nil(t, members)
				return
			}
			require.NoError(t, err)
			texts := map[string]string{}
			for name, value := range members {
				texts[name] = string(value)
			}
			require.Equal(t, tc.want, texts)
		})
	}
}

func TestDropNull(t *testing.T) {
	t.Parallel()
	members, err := Object([]byte(`{"a": null ,"b":"null","c":[null],"d":0,"e":null}`))
	require.NoError(t, err)
	DropNull(members)
	require.Equal(t, map[string]json.RawMessage{"b": json.RawMessage(`"null"`), "c": json.RawMessage("[null]"), "d": json.RawMessage("0")}, members)
}

func TestMembers(t *testing.T) {
	t.Parallel()
	for data, want := range map[string]string{
		`{"b":1,"a":{"c":[]},"b":"x"}`:                               `b=1 a={"c":[]} b="x" `,
		" { \"a\" :\tnull , \"b\"\n:[ {\"c\": \"]}\\\"\"}, {}\r] } ": "a=null b=[ {\"c\": \"]}\\\"\"}, {}\r] ",
		`{"\u0061\\\"":-1.5e3,"":"\\","":{}}`:                        `a\"=-1.5e3 ="\\" ={} `,
		"{}":                                                         "",
		"null":                                                       "",
		"[1,2]":                                                      "",
		`"a"`:                                                        "",
		"":                                                           "",
	} {
		var got strings.Builder
		for name, value := range Members([]byte(data)) {
			got.WriteString(name + "=" + string(value) + " ")
		}
		require.Equal(t, want, got.String(), data)
	}
	for name := range Members([]byte(`{"a":1,"b":2}`)) {
		require.Equal(t, "a", name)
		break
	}
}

// A target has a field of each type that Unmarshal supports.
type target struct {
	Text  string   `json:"text,omitempty"`
	Flag  bool     `json:"flag"`
	Texts []string `json:"texts"`
	Inner struct {
		Text string `json:"text"`
	} `json:"inner,omitzero"`
	Untagged string
	Ignored  string `json:"-"`
}

func TestUnmarshal(t *testing.T) {
	t.Parallel()
	full := target{Text: "a", Flag: true, Texts: []string{"b", "c"}, Untagged: "kept", Ignored: "kept"}
	full.Inner.Text = "d"
	untouched := target{Untagged: "kept", Ignored: "kept"}
	for _, tc := range []struct {
		name, object string
		want         target
		err          string
	}{
		{"every type", `{"text":"a","flag":true,"texts":["b","c"],"inner":{"text":"d"}}`, full, ""},
		{"empty", `{}`, untouched, ""},
		{"null", `{"text":null,"flag":null,"texts":null,"inner":null}`, untouched, ""},
		{"null inside", `{"inner":{"text":null}}`, untouched, ""},
		{"other letter case", `{"Text":"x","TEXT":"x","te\u017ft":"x","inner":{"Text":"x"}}`, untouched, ""},
		{"unknown members", `{"x":1,"x":1e999,"inner":{"x":1,"x":2}}`, untouched, ""},
		{"names of fields", `{"Untagged":"x","Ignored":"x","":"x","-":"x"}`, untouched, ""},
		{"repeated", `{"text":"a","text":"a"}`, target{}, "text appears more than once"},
		{"repeated, once escaped", `{"text":"a","\u0074ext":"a"}`, target{}, "text appears more than once"},
		{"repeated, once null", `{"text":null,"text":"a"}`, target{}, "text appears more than once"},
		{"repeated object", `{"inner":{},"inner":{}}`, target{}, "inner appears more than once"},
		{"repeated inside", `{"inner":{"text":"a","text":"b"}}`, target{}, "inner: text appears more than once"},
		{"no string", `{"text":["s3cr3t"]}`, target{}, "text is not a string"},
		{"no string inside", `{"inner":{"text":5}}`, target{}, "inner: text is not a string"},
		{"no boolean", `{"flag":"s3cr3t"}`, target{}, "flag is not a boolean"},
		{"no list", `{"texts":"s3cr3t"}`, target{}, "texts is not a list of strings"},
		{"list of others", `{"texts":["s3cr3t",1]}`, target{}, "texts is not a list of strings"},
		{"no object", `{"inner":"s3cr3t"}`, target{}, "inner is not a JSON object"},
		{"array for an object", `{"inner":[{"text":"s3cr3t"}]}`, target{}, "inner is not a JSON object"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got := target{Untagged: "kept", Ignored: "kept"}
			err := Unmarshal([]byte(tc.object), &got)
			if tc.err != "" {
				require.EqualError(t, err, tc.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tc.want, got)
		})
	}
}

func TestD3_UnmarshalOfWhatIsNeeded(t *testing.T) {
	t.Parallel()
	for object, want := range map[string]string{
		`{"text":"a","flag":"x","texts":"x","inner":[]}`: "",
		`{"text":"a","texts":["b",1]}`:                   "",
		`{"text":"a","flag":true,"flag":true,"texts":["b"],"texts":5,"inner":{"text":"c"},"inner":{},"inner":{"text":"d"}}`: "",
		`{"text":"a","inner":{"text":5}}`:              "",
		`{"text":"a","inner":{"text":"b","text":"c"}}`: "",
		`{"text":5,"flag":"x"}`:                        "text is not a string",
		`{"text":"a","text":"a"}`:                      "text appears more than once",
	} {
		var got target
		err := Unmarshal([]byte(object), &got, "text")
		if want != "" {
			require.EqualError(t, err, want)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, target{Text: "a"}, got, object)
	}
}

// FuzzObject compares every function with encoding/json, which must agree about an
// object without repeated names and without names in other letter case.
func FuzzObject(f *testing.F) {
	for _, data := range []string{
		`{"text":"a","flag":true,"texts":["b","c"],"inner":{"text":"d"}}`, `{"text":null,"inner":null,"x":1e999}`,
		`{"text":"a","text":"b"}`, `{"Text":"a"}`, `{"te\u017ft":"a"}`, `{"inner":{"text":5,"TEXT":""}}`, `{"texts":[null]}`,
		" {\"\xff\":\"\xfe\"} ", `{"\ud800":1,"\udfff":2}`, `{}{}`, `null`, `[]`, `"{"`, `{"a":1,}`, `{"a"`, `{]`, ``,
	} {
		f.Add([]byte(data))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var theirs map[string]json.RawMessage
		isObject := json.Unmarshal(data, &theirs) == nil && theirs != nil
		require.Equal(t, isObject, IsObject(data))

		count, plain := 0, true // plain: encoding/json must agree
		for name, value := range Members(data) {
			count++
			if !isObject {
				continue // Members just must not panic.
			}
			var want any
			err := json.Unmarshal(value, &want)
			require.NotErrorAs(t, err, new(*json.SyntaxError), "%q", value)
			require.Equal(t, want, Value(value))
			plain = plain && isPlain(name, "text", "flag", "texts", "inner")
			inner := map[string]bool{}
			for name := range Members(value) {
				plain = plain && isPlain(name, "text") && !inner[name]
				inner[name] = true
			}
		}

		ours, err := Object(data)
		switch {
		case err == nil:
			require.True(t, isObject && utf8.Valid(data))
			require.Equal(t, theirs, ours)
			require.Len(t, ours, count)
		case isObject && utf8.Valid(data):
			require.EqualError(t, err, repeated)
			require.Greater(t, count, len(theirs))
		default:
			require.Contains(t, []string{invalid, noObject, followed}, err.Error())
		}

		if isObject && plain && count == len(theirs) {
			var want, got target
			wantErr, gotErr := json.Unmarshal(data, &want), Unmarshal(data, &got)
			require.Equal(t, wantErr == nil, gotErr == nil, "%v, %v", wantErr, gotErr)
			if gotErr == nil {
				require.Equal(t, want, got)
			}
		}
	})
}

// isPlain reports whether encoding/json and this package agree about the field that
// takes name: one of these names in this letter case, or none.
func isPlain(name string, known ...string) bool {
	for _, k := range known {
		if strings.EqualFold(name, k) && name != k {
			return false
		}
	}
	return !strings.EqualFold(name, "Untagged") // encoding/json takes it without a tag.
}
