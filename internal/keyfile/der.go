package keyfile

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
)

// A format is what a value in DER is.
type format int

const (
	other        format = iota // not recognised
	privateKey                 // PKCS #8, PKCS #1, SEC 1, or another that has no encryption
	encryptedKey               // PKCS #8
	certificate
	pkcs7
	pkcs12
	ignored // a public key and the like
)

// pkcs7Types begins the object identifiers of PKCS #7, 1.2.840.113549.1.7.
var pkcs7Types = []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7}

// formatOf recognises a format by the types of its first members.
func formatOf(value asn1.RawValue) format {
	if value.Tag == asn1.TagOID { // the curve in EC PARAMETERS
		return ignored
	}
	members := membersOf(value)
	tags := make([]byte, 0, len(members))
	for _, m := range members {
		tag := byte('?')
		if m.Class == asn1.ClassUniversal {
			tag = map[int]byte{asn1.TagInteger: 'i', asn1.TagOctetString: 'o', asn1.TagBitString: 'b', asn1.TagOID: 'd', asn1.TagSequence: 's'}[m.Tag]
		}
		tags = append(tags, tag)
	}
	starts := func(with string) bool { return bytes.HasPrefix(tags, []byte(with)) }
	switch {
	case starts("iso"), // PKCS #8: version, algorithm, key
		starts("io"),     // SEC 1: version, key
		starts("iiiiii"): // PKCS #1; also DSA, which has six
		return privateKey
	case starts("so") && len(tags) == 2: // algorithm, encrypted key
		return encryptedKey
	case starts("ssb"):
		if isCertificate(value, members[0]) {
			return certificate
		}
		return ignored // a request for a certificate, or a list of revoked ones
	case starts("d") && bytes.HasPrefix(members[0].Bytes, pkcs7Types):
		return pkcs7
	case starts("is"):
		if first := membersOf(members[1]); len(first) > 0 && bytes.HasPrefix(first[0].Bytes, pkcs7Types) {
			return pkcs12
		}
		return ignored // the parameters of a curve
	case starts("sb"), starts("ii"): // a public key, or the parameters of a group
		return ignored
	}
	return other
}

// membersOf returns the members of a SEQUENCE.
func membersOf(value asn1.RawValue) []asn1.RawValue {
	var members []asn1.RawValue
	if value.Class != asn1.ClassUniversal || value.Tag != asn1.TagSequence {
		return nil
	}
	for rest := value.Bytes; len(rest) > 0; {
		var member asn1.RawValue
		var err error
		if rest, err = asn1.Unmarshal(rest, &member); err != nil {
			return nil
		}
		members = append(members, member)
	}
	return members
}

// isCertificate reports whether value, which has a signature, is a certificate. One of
// version 2 or 3 begins with its version, [0]. It may be one that crypto/x509 can't parse.
func isCertificate(value, signed asn1.RawValue) bool {
	if members := membersOf(signed); len(members) > 0 && members[0].Class == asn1.ClassContextSpecific {
		return true
	}
	_, err := x509.ParseCertificate(value.FullBytes)
	return err == nil
}
