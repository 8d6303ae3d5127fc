package redact

import (
	"slices"
	"strings"
	"unicode"

	"github.com/seed-5bfa0880/clientcredentials/internal/ascii"
)

// IsCredentialName reports whether the value of a parameter with that name is hidden
// in texts, because the name is that of a credential, like client_secret, device_code
// or apiKey. If in doubt it says yes: a value that is hidden without need does little
// harm, and a credential in a log does much.
func IsCredentialName(name string) bool {
	words := wordsOf(name)
	return isCredential(words) || strings.HasSuffix(lastOf(words), "key") && !slices.Contains(words, "public")
}

// ForbidsSharing reports whether a token that was requested with a parameter of that
// name must not be shared through a store, because the parameter is a credential. A
// yes keeps the program from using its store at all. So keys that only order or
// distribute data, like partition_key, don't forbid sharing, although IsCredentialName
// hides their values.
func ForbidsSharing(name string) bool {
	words := wordsOf(name)
	return isCredential(words) || lastOf(words) == "key" && !slices.ContainsFunc(words, isOneOf(dataKeys))
}

// These are lists of words, with a space around each.
const (
	// credentialWords are credentials wherever they occur in a name, unless the name
	// ends with one of describingWords.
	credentialWords = " assertion bearer cookie cred credential hmac hotp jwt otp passcode passphrase passwd password passwrd pfx pin proof psk psw pw pwd saml secret sessionid sig signature ticket token totp verifier "

	// credentialEndings are credentials also at the end of a word, as in accesstoken.
	credentialEndings = " accesskey apikey assertion authkey credential jwt passcode passphrase passwd password privatekey secret secretkey sharedkey signature signingkey subscriptionkey token verifier "

	// lastWords are credentials if a name ends with them. In auth_time and
	// authorization_details they aren't.
	lastWords = " auth authorization pass "

	// describingWords end the names of what describes a credential, like token_type
	// and key_id.
	describingWords = " age alg algorithm algorithms at audience binding challenge class count days details duration enabled enc encoding endpoint expiration expires expiry format header hint hours id ids in index issuer kid kind length level lifetime limit location method methods minutes mode name number policy prefix profile provider region required scope scopes seconds size source status strategy style supported ttl type types uri url usage use version "

	// credentialCodes come before "code" in the names of credentials. Other codes are
	// like country_code.
	credentialCodes = " access activation auth authorization backup device invite login mfa otp recovery secret security sms time user verification "

	// dataKeys come before "key" in the names of keys that open nothing.
	dataKeys = " cache correlation deduplication feature foreign group idempotency index lookup message object ordering partition primary public row routing shard sharding sort tenant translation "

	// exactNames are credentials although the lists above say otherwise. A comma
	// separates their words.
	exactNames = " code id,token,hint secret,id session session,id "
)

// isCredential reports whether words are the name of a credential that isn't called a
// key.
func isCredential(words []string) bool {
	switch last := lastOf(words); {
	case isOneOf(exactNames)(strings.Join(words, ",")):
		return true
	case isOneOf(describingWords)(last):
		return false
	case isOneOf(lastWords)(last), endsInCredential(strings.Join(words, "")):
		return true
	}
	for i, word := range words {
		qualifier, isCode := strings.CutSuffix(word, "code")
		if qualifier == "" && i > 0 {
			qualifier = words[i-1]
		}
		if isOneOf(credentialWords)(word) || endsInCredential(word) || isCode && isOneOf(credentialCodes)(qualifier) {
			return true
		}
	}
	return false
}

// lastOf returns the last of words, or "" if there are none.
func lastOf(words []string) string {
	if len(words) == 0 {
		return ""
	}
	return words[len(words)-1]
}

// endsInCredential reports whether word is one of credentialEndings, or ends in one.
func endsInCredential(word string) bool {
	for ending := range strings.FieldsSeq(credentialEndings) {
		if strings.HasSuffix(word, ending) {
			return true
		}
	}
	return false
}

// isOneOf returns a function that reports whether a word is in a list.
func isOneOf(list string) func(word string) bool {
	return func(word string) bool { return strings.Contains(list, " "+word+" ") }
}

// wordsOf returns the words of a name in lower case and without numbers. Credentials
// are in the singular. A word ends at a character that is neither letter nor digit, and
// at a change of case: client_secret, client-secret2 and clientSecrets have the same
// words, and APIKey has the words api and key.
func wordsOf(name string) (words []string) {
	runes := []rune(name)
	begin := 0
	add := func(end int) {
		word := strings.TrimRight(ascii.Lower(string(runes[begin:end])), "0123456789")
		if singular, isPlural := strings.CutSuffix(word, "s"); isPlural && (isOneOf(credentialWords+"code key ")(singular) || endsInCredential(singular)) {
			word = singular
		}
		if word != "" {
			words = append(words, word)
		}
		begin = end
	}
	for i, r := range runes {
		switch {
		case !unicode.IsLetter(r) && !unicode.IsDigit(r):
			add(i)
			begin = i + 1
		case i == begin || !unicode.IsUpper(r):
		case !unicode.IsUpper(runes[i-1]), i+1 < len(runes) && unicode.IsLower(runes[i+1]):
			add(i)
		}
	}
	add(len(runes))
	return words
}
