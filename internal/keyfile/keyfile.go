// Package keyfile reads files that hold private keys, certificates or a secret. It goes by
// what is in a file, not by the file's name or by the label of a PEM block.
//
// Read finds the keys and the certificates. It doesn't parse them: package jws does that
// for keys, and crypto/x509 for certificates. Text is for secrets, too.
//
// No error quotes what is in a file. Each says which command makes a usable file, and calls
// the file FILE.
package keyfile

import (
	"bytes"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/seed-5bfa0880/clientcredentials/internal/strictjson"
)

// ErrEncrypted is the error for a private key that is encrypted.
var ErrEncrypted = errors.New("the private key is encrypted; decrypt it first, for example with openssl pkey -in FILE -out key.pem")

var (
	errEmpty   = errors.New("the data is empty; it must be a private key or a certificate in PEM or DER, or a JWK")
	errDamaged = errors.New("the PEM is damaged: a block has no end, or contains something other than base64; make a new copy of the file")
	errPKCS12  = errors.New("the data is PKCS #12; take the key out of it with openssl pkcs12 -in FILE -nodes -nocerts -out key.pem, and the certificates with openssl pkcs12 -in FILE -nokeys -out cert.pem")
	errPKCS7   = errors.New("the data is PKCS #7 (.p7b); take the certificates out of it with openssl pkcs7 -in FILE -print_certs -out cert.pem, and add -inform DER if the file is binary")
	errOpenSSH = errors.New("the private key is in the format of OpenSSH; convert a copy of it with ssh-keygen -p -m PKCS8 -f COPY")
	errPGP     = errors.New("the data is a key for OpenPGP, which can't be used; make a key with openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem")
	errTail    = errors.New("something follows the key or the certificate inside its block; remove it")

	// ErrNoKey and ErrNoCertificate are about a file that has only other parts.
	ErrNoKey         = errors.New("there is a certificate or a public key, but no private key; give the file with the private key")
	errNoCertificate = errors.New("there is no certificate; check that this is the right file")
)

// unusable are the formats that are recognised by how a file begins.
func unusable(data []byte) error {
	for _, format := range []struct{ start, advice string }{
		{"\xfe\xed\xfe\xed", "the data is a Java key store; convert it with keytool -importkeystore -srckeystore FILE -destkeystore keys.p12 -deststoretype PKCS12, and then with openssl pkcs12 -in keys.p12 -nodes -out key.pem"},
		{"\xce\xce\xce\xce", "the data is a Java key store; convert it with keytool -importkeystore -srckeystore FILE -srcstoretype JCEKS -destkeystore keys.p12 -deststoretype PKCS12, and then with openssl pkcs12 -in keys.p12 -nodes -out key.pem"},
		{"\x1e\xf1\xb5\xb0", "the data is a PVK file of Windows; convert it with openssl rsa -inform PVK -in FILE -out key.pem"},
		{"PuTTY-User-Key-File", "the data is a key of PuTTY; convert it with puttygen FILE -O private-openssh -o key.pem"},
		{"---- BEGIN SSH2", "the data is a key for SSH; convert a private one with ssh-keygen -i -f FILE"},
		{"<RSAKeyValue", "the data is an RSA key in XML; export it as PEM instead, in .NET with ExportPkcs8PrivateKeyPem"},
		{"ssh-", "the data is a public key of OpenSSH; give the file with the private key"},
		{"ecdsa-sha2-", "the data is a public key of OpenSSH; give the file with the private key"},
	} {
		if bytes.HasPrefix(data, []byte(format.start)) {
			return errors.New(format.advice)
		}
	}
	return nil
}

// Contents are the parts of a file, each only once, in their order.
type Contents struct {
	Keys         []Part // private keys
	Certificates []Part
}

// A Part is one private key or one certificate.
type Part struct {
	Data []byte // in DER; a key may also be a JWK, which begins with a brace
	Err  error  // why it can't be used; nil: nothing is known against it
}

// Read returns the parts of a file. The file may be
//
//   - PEM with any labels and with text around its blocks, also if its line breaks are
//     missing, or are the two characters \n,
//   - DER,
//   - a JWK, or a set of them (RFC 7517),
//   - other JSON that has one of these in it, as the files of some providers do. It may be in a
//     string, also in base64,
//   - base64 of one of these.
//
// It may begin with a byte order mark, and be in UTF-16 if it does. It is an error if the
// file is none of these, or if it is a known format without a usable part.
func Read(data []byte) (Contents, error) {
	var c Contents
	text := bytes.TrimSpace(Text(data))
	if len(text) == 0 {
		return c, errEmpty
	}
	switch {
	case c.read(data, 0):
		return c, nil
	case isDER(data):
		return c, errors.New("the data is DER, but neither a private key nor a certificate; see what it is with openssl asn1parse -inform DER -in FILE")
	case isJSON(text) && text[0] != '"':
		return c, errors.New("the JSON contains no private key and no certificate: no JWK, which has a member kty, no PEM, and no base64 of either; give the file with the key")
	}
	if err := unusable(text); err != nil {
		return c, err
	}
	return c, errors.New("the data is neither PEM nor a JWK, nor is it DER; it must be a private key or a certificate in one of these formats")
}

// maxDepth bounds how deep Read looks into JSON and base64.
const maxDepth = 20

// read adds the parts of data, and reports whether it recognised the format.
func (c *Contents) read(data []byte, depth int) bool {
	text := bytes.TrimSpace(Text(data))
	switch {
	case len(text) == 0 || depth > maxDepth:
		return false
	case isDER(data): // Its last byte may look like white space.
		return c.readDER(data)
	case isJSON(text):
		return c.readJSON(text, depth)
	case bytes.Contains(text, []byte("-----BEGIN ")), bytes.Contains(text, []byte("-----END ")):
		c.readPEM(text)
		return true
	case text[0] == '{':
		c.addKey(Part{Data: text}) // Whoever parses it as a JWK says what is wrong with it.
		return true
	}
	inner, err := decodeBase64(text)
	return err == nil && c.read(inner, depth+1)
}

// isJSON reports whether text is an object, an array or a string.
func isJSON(text []byte) bool { return strings.IndexByte(`{["`, text[0]) >= 0 && json.Valid(text) }

// isDER reports whether data begins with a SEQUENCE of ASN.1, as all formats in DER do.
func isDER(data []byte) bool {
	var value asn1.RawValue
	_, err := asn1.Unmarshal(data, &value)
	return err == nil && value.Class == asn1.ClassUniversal && value.Tag == asn1.TagSequence && value.IsCompound
}

// decodeBase64 decodes base64 of either alphabet. White space and a missing padding don't
// matter.
func decodeBase64(text []byte) ([]byte, error) {
	joined := strings.TrimRight(strings.Join(strings.Fields(string(text)), ""), "=")
	if strings.ContainsAny(joined, "-_") {
		return base64.RawURLEncoding.DecodeString(joined)
	}
	return base64.RawStdEncoding.DecodeString(joined)
}

// readDER adds the values in data, which follow each other.
func (c *Contents) readDER(data []byte) (found bool) {
	for len(bytes.TrimSpace(data)) > 0 {
		var value asn1.RawValue
		rest, err := asn1.Unmarshal(data, &value)
		if err != nil {
			for _, parts := range [][]Part{c.Keys, c.Certificates} {
				if len(parts) > 0 {
					parts[len(parts)-1].Err = errTail
				}
			}
			return true
		}
		found = c.addDER("", value.FullBytes) || found
		data = rest
	}
	return found
}

// readJSON adds the keys and certificates anywhere in text.
func (c *Contents) readJSON(text json.RawMessage, depth int) (found bool) {
	switch {
	case depth > maxDepth || len(text) == 0:
	case text[0] == '"':
		var s string
		return json.Unmarshal(text, &s) == nil && c.readString([]byte(s), depth+1)
	case text[0] == '[':
		var elements []json.RawMessage
		if json.Unmarshal(text, &elements) == nil {
			for _, element := range elements {
				found = c.readJSON(element, depth+1) || found
			}
		}
	case text[0] == '{':
		members := maps.Collect(strictjson.Members(text))
		strictjson.DropNull(members)
		if members["kty"] != nil {
			if members["d"] != nil || depth == 0 || bytes.Equal(members["kty"], []byte(`"oct"`)) { // Among others, public keys don't matter.
				c.addKey(Part{Data: text})
			}
			return true
		}
		for _, value := range strictjson.Members(text) {
			found = c.readJSON(value, depth+1) || found
		}
	}
	return found
}

// readString adds the parts of a string in JSON. Unlike read, it recognises only what can't be an
// ordinary string: PEM, valid JSON, a key or a certificate in DER, and base64 of these.
func (c *Contents) readString(s []byte, depth int) bool {
	text := bytes.TrimSpace(s)
	switch {
	case len(text) == 0 || depth > maxDepth:
		return false
	case bytes.Contains(text, []byte("-----BEGIN ")), isJSON(text):
		return c.read(text, depth)
	case isDER(s):
		var value asn1.RawValue
		_, _ = asn1.Unmarshal(s, &value) // It is valid.
		kind := formatOf(value)
		return (kind == privateKey || kind == encryptedKey || kind == certificate) && c.readDER(s)
	}
	inner, err := decodeBase64(text)
	return err == nil && c.readString(inner, depth+1)
}

// readPEM adds the blocks of text. encoding/pem would skip blocks that it can't decode.
func (c *Contents) readPEM(text []byte) {
	rest := strings.NewReplacer(`\r`, "", "\r", "", `\n`, "\n").Replace(string(text))
	for {
		between, after, found := strings.Cut(rest, "-----BEGIN ")
		if _, orphan, ok := strings.Cut(between, "-----END "); ok {
			c.addDamaged(orphan)
		}
		if !found {
			return
		}
		var label, body string
		label, body, found = strings.Cut(after, "-----")
		end := strings.Index(body, "-----END ")
		if next := strings.Index(body, "-----BEGIN "); !found || end < 0 || 0 <= next && next < end {
			c.addDamaged(after)
			rest = after
			continue
		}
		c.addBlock(label, body[:end])
		rest = body[end+len("-----END "):]
	}
}

// addDamaged adds the part that a damaged block would have been.
func (c *Contents) addDamaged(label string) {
	label, _, _ = strings.Cut(label, "-----")
	part := Part{Err: errDamaged}
	switch {
	case strings.Contains(label, "PRIVATE KEY"):
		c.add(part, Part{})
	case strings.Contains(label, "CERTIFICATE"), strings.Contains(label, "PKCS7"):
		c.add(Part{}, part)
	case strings.Contains(label, "PUBLIC KEY"), strings.Contains(label, "PARAMETERS"):
	default:
		c.add(part, part)
	}
}

// addBlock adds what is in a PEM block (RFC 7468, and RFC 1421 for its headers).
func (c *Contents) addBlock(label, body string) {
	switch {
	case strings.HasPrefix(label, "PGP "):
		c.add(Part{Err: errPGP}, Part{Err: errPGP})
		return
	case label == "OPENSSH PRIVATE KEY":
		c.addKey(Part{Err: errOpenSSH})
		return
	case strings.Contains(body, "Proc-Type:") && strings.Contains(body, "ENCRYPTED"):
		c.addKey(Part{Err: ErrEncrypted})
		return
	}
	if strings.Contains(body, ":") {
		lines := strings.Split(body, "\n")
		blank := slices.IndexFunc(lines[1:], func(line string) bool { return strings.TrimSpace(line) == "" })
		body = strings.Join(lines[blank+2:], "")
	}
	der, err := decodeBase64([]byte(body))
	if err != nil || len(der) == 0 {
		c.addDamaged(label)
		return
	}
	if c.addDER(label, der) {
		return
	}
	// Whoever parses it says what is wrong with it.
	switch part := (Part{Data: der}); {
	case label == "ENCRYPTED PRIVATE KEY":
		c.addKey(Part{Err: ErrEncrypted})
	case strings.HasSuffix(label, "PRIVATE KEY"):
		c.addKey(part)
	case strings.HasSuffix(label, "CERTIFICATE"):
		c.add(Part{}, part)
	}
}

// addDER adds what der is, and reports whether it is something that is known. The label is
// that of a PEM block.
func (c *Contents) addDER(label string, der []byte) bool {
	var value asn1.RawValue
	rest, err := asn1.Unmarshal(der, &value)
	if err != nil {
		return false
	}
	kind := formatOf(value)
	if kind == ignored && strings.HasSuffix(label, "CERTIFICATE") {
		kind = certificate // One of version 1 that crypto/x509 can't parse.
	}
	part := Part{Data: value.FullBytes}
	if len(rest) > 0 && !strings.HasPrefix(label, "TRUSTED") { // OpenSSL adds its opinion to a TRUSTED CERTIFICATE.
		part.Err = errTail
	}
	switch kind {
	case privateKey:
		c.addKey(part)
	case encryptedKey:
		c.addKey(Part{Err: ErrEncrypted})
	case certificate:
		c.add(Part{}, part)
	case pkcs7:
		c.add(Part{}, Part{Err: errPKCS7})
	case pkcs12:
		c.add(Part{Err: errPKCS12}, Part{Err: errPKCS12})
	case other:
		return false
	case ignored:
	}
	return true
}

func (c *Contents) addKey(key Part) { c.add(key, Part{}) }

// add adds a key and a certificate. It skips those that are empty or already there.
func (c *Contents) add(key, certificate Part) {
	for _, to := range []struct {
		parts *[]Part
		part  Part
	}{{&c.Keys, key}, {&c.Certificates, certificate}} {
		known := slices.ContainsFunc(*to.parts, func(p Part) bool { return p.Err == nil && bytes.Equal(p.Data, to.part.Data) })
		if (to.part.Data != nil || to.part.Err != nil) && !known {
			*to.parts = append(*to.parts, to.part)
		}
	}
}

// Certificates returns the certificates in a file, in DER. It is an error if there is none,
// or if one of them can't be used.
func Certificates(data []byte) ([][]byte, error) {
	contents, err := Read(data)
	if err != nil {
		return nil, err
	}
	var all [][]byte
	for _, part := range contents.Certificates {
		if part.Err != nil {
			return nil, part.Err
		}
		all = append(all, part.Data)
	}
	if all == nil {
		return nil, errNoCertificate
	}
	return all, nil
}
