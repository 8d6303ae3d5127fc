package jws

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
)

// newKeyCommand makes a key that every function here can use.
const newKeyCommand = "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem"

// parseDER returns a private key in PKCS #8, PKCS #1 or SEC 1. Like crypto/tls it finds out
// by itself which of them it is.
func parseDER(der []byte) (crypto.Signer, error) {
	var pkcs8 struct { // RFC 5958, Section 2
		Version   int
		Algorithm pkix.AlgorithmIdentifier
		Key       []byte
	}
	var sec1 struct { // RFC 5915, Section 3
		Version int
		Key     []byte
		Curve   asn1.RawValue `asn1:"optional,explicit,tag:0"`
	}
	var key any
	var err error
	if _, mismatch := asn1.Unmarshal(der, &pkcs8); mismatch == nil {
		switch algorithm := pkcs8.Algorithm; {
		case algorithm.Algorithm.Equal(idRSASSAPSS):
			return parsePSS(algorithm.Parameters, pkcs8.Key)
		case algorithm.Algorithm.Equal(idECPublicKey):
			err = checkCurve(algorithm.Parameters.FullBytes)
		default:
			err = checkKind(algorithm.Algorithm)
		}
		if err != nil {
			return nil, err
		}
		key, err = x509.ParsePKCS8PrivateKey(der)
	} else if _, mismatch := asn1.Unmarshal(der, &sec1); mismatch == nil {
		if err := checkCurve(sec1.Curve.Bytes); err != nil {
			return nil, err
		}
		key, err = x509.ParseECPrivateKey(der)
	} else {
		var numbers []*big.Int
		if _, mismatch := asn1.Unmarshal(der, &numbers); mismatch == nil && len(numbers) == 6 { // PKCS #1 has nine.
			return nil, checkKind(idDSA)
		}
		key, err = x509.ParsePKCS1PrivateKey(der)
	}
	if err != nil {
		return nil, fmt.Errorf("the private key can't be read; openssl pkey -in FILE -check may say more: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("the private key can't sign; make one that can with " + newKeyCommand)
	}
	return signer, nil
}

var (
	idRSASSAPSS   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}
	idMGF1        = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 8}
	idDSA         = asn1.ObjectIdentifier{1, 2, 840, 10040, 4, 1}
	idECPublicKey = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
)

// checkKind returns an error that names a kind of key that can't be used.
func checkKind(algorithm asn1.ObjectIdentifier) error {
	for _, kind := range []struct {
		name string
		id   asn1.ObjectIdentifier // or what it begins with
	}{
		{"an X25519 key, which can't sign", asn1.ObjectIdentifier{1, 3, 101, 110}},
		{"an X448 key, which can't sign", asn1.ObjectIdentifier{1, 3, 101, 111}},
		{"a Diffie-Hellman key, which can't sign", asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 3}},
		{"a Diffie-Hellman key, which can't sign", asn1.ObjectIdentifier{1, 2, 840, 10046}},
		{"an RSA key for encryption (RSAES-OAEP)", asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 7}},
		{"an Ed448 key, which isn't supported", asn1.ObjectIdentifier{1, 3, 101, 113}},
		{"a DSA key, which isn't supported", asn1.ObjectIdentifier{1, 2, 840, 10040, 4}},
		{"an ML-DSA or SLH-DSA key, which isn't supported", asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 3}},
		{"a GOST key, which isn't supported", asn1.ObjectIdentifier{1, 2, 643}},
	} {
		if n := len(kind.id); len(algorithm) >= n && algorithm[:n].Equal(kind.id) {
			return fmt.Errorf("the private key is %s; make another with %s, and register its public key with the server", kind.name, newKeyCommand)
		}
	}
	return nil
}

// checkCurve returns an error that names a curve that can't be used. RFC 5480, Section
// 2.1.1, allows nothing but the name of a curve.
func checkCurve(parameters []byte) error {
	var value asn1.RawValue
	if _, err := asn1.Unmarshal(parameters, &value); err == nil && value.Tag == asn1.TagSequence {
		return errors.New("the private key describes its curve by parameters instead of its name; convert it with openssl ec -in FILE -param_enc named_curve -out key.pem")
	}
	name := "a curve that isn't supported"
	var curve asn1.ObjectIdentifier
	if _, err := asn1.Unmarshal(parameters, &curve); err != nil {
		name = "a curve that it doesn't name"
	}
	switch curve.String() {
	case "1.3.132.0.33", "1.2.840.10045.3.1.7", "1.3.132.0.34", "1.3.132.0.35": // P-224, P-256, P-384, P-521
		return nil
	case "1.3.132.0.10":
		name = "secp256k1, which isn't supported"
	case "1.2.156.10197.1.301":
		name = "SM2, which isn't supported"
	case "1.2.840.10045.3.1.1":
		name = "P-192, which isn't supported"
	default:
		if brainpool := (asn1.ObjectIdentifier{1, 3, 36, 3, 3, 2, 8, 1, 1}); len(curve) > len(brainpool) && curve[:len(brainpool)].Equal(brainpool) {
			name = "a Brainpool curve, which isn't supported"
		}
	}
	return fmt.Errorf("the private key is on %s; make another with %s, and register its public key with the server", name, newKeyCommand)
}

// A pssKey is an RSA key that must sign with RSASSA-PSS only, RFC 4055, Section 1.2.
type pssKey struct {
	private *rsa.PrivateKey
	hash    crypto.Hash // the only one that it may be used with; 0: any
}

// Public returns an *rsa.PublicKey.
func (k pssKey) Public() crypto.PublicKey { return k.private.Public() }

// Sign signs digest. It is an error if opts aren't what the key is for.
func (k pssKey) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if pss, ok := opts.(*rsa.PSSOptions); !ok || k.hash != 0 && pss.HashFunc() != k.hash {
		return nil, fmt.Errorf("the key is %s, and can't be used otherwise", k.kind())
	}
	return k.private.Sign(random, digest, opts)
}

func (k pssKey) kind() keyKind {
	if k.hash == 0 {
		return pssKind
	}
	return pssKind + keyKind(" for "+k.hash.String())
}

// parsePSS returns a key with the parameters of RFC 4055, Section 3.1. They restrict what it
// may be used for. crypto/x509 doesn't parse such keys.
func parsePSS(parameters asn1.RawValue, pkcs1 []byte) (crypto.Signer, error) {
	private, err := x509.ParsePKCS1PrivateKey(pkcs1)
	if err != nil {
		return nil, fmt.Errorf("the private key can't be read; openssl pkey -in FILE -check may say more: %w", err)
	}
	key := pssKey{private: private}
	if len(parameters.FullBytes) == 0 || parameters.Tag == asn1.TagNull {
		return key, nil
	}
	var restriction struct {
		Hash    pkix.AlgorithmIdentifier `asn1:"optional,explicit,tag:0"`
		MGF     pkix.AlgorithmIdentifier `asn1:"optional,explicit,tag:1"`
		Salt    int                      `asn1:"optional,explicit,tag:2,default:20"`
		Trailer int                      `asn1:"optional,explicit,tag:3,default:1"`
	}
	if rest, err := asn1.Unmarshal(parameters.FullBytes, &restriction); err != nil || len(rest) > 0 {
		return nil, errors.New("the RSA-PSS key's parameters can't be read; openssl pkey -in FILE -text may say more")
	}
	for _, hash := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512} {
		id := hashIdentifier(hash)
		var mask pkix.AlgorithmIdentifier
		_, err := asn1.Unmarshal(restriction.MGF.Parameters.FullBytes, &mask)
		if restriction.Hash.Algorithm.Equal(id) && restriction.MGF.Algorithm.Equal(idMGF1) && err == nil && mask.Algorithm.Equal(id) && restriction.Salt <= hash.Size() {
			key.hash = hash
			return key, nil
		}
	}
	// RFC 7518, Section 3.5: one hash for all, and a salt that is as long.
	return nil, errors.New("the RSA-PSS key is restricted to parameters that no JWS algorithm has (RFC 7518, Section 3.5); make another with openssl genpkey -algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048 -out key.pem, and register its public key with the server")
}

// hashIdentifier returns the object identifier of SHA-256, SHA-384 or SHA-512, RFC 4055,
// Section 2.1.
func hashIdentifier(hash crypto.Hash) asn1.ObjectIdentifier {
	last := map[crypto.Hash]int{crypto.SHA256: 1, crypto.SHA384: 2, crypto.SHA512: 3}[hash]
	return asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, last}
}
