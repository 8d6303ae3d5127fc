package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/seed-5bfa0880/clientcredentials/internal/keyfile"
	"github.com/seed-5bfa0880/clientcredentials/internal/strictjson"
)

// A document is a JSON file that is read strictly: a member that nobody asks for, that
// appears twice or that has another type is an error with its line.
type document struct {
	text []byte
	err  error // the first one
}

// An object is a JSON object in a document.
type object struct {
	document *document
	path     []string // from the root: names of members, and indexes of arrays
	members  map[string]json.RawMessage
	asked    map[string]bool
}

// newDocument returns the object that is the content of a file.
func newDocument(data []byte) (*document, *object) {
	d := &document{text: keyfile.Text(data)}
	var syntax *json.SyntaxError
	if err := json.Unmarshal(d.text, new(any)); errors.As(err, &syntax) {
		d.err = fmt.Errorf("line %d: it isn't valid JSON", d.line(syntax.Offset)) // err quotes the file.
	}
	return d, d.object(d.text, nil)
}

func (d *document) object(raw json.RawMessage, path []string) *object {
	members, err := strictjson.Object(raw)
	if err != nil {
		d.fail(path, "%w", err)
	}
	return &object{d, path, members, make(map[string]bool)}
}

// fail keeps the first error, with the line of what is at path.
func (d *document) fail(path []string, format string, args ...any) {
	if d.err == nil {
		offset := offsetOf(json.NewDecoder(bytes.NewReader(d.text)), path)
		d.err = fmt.Errorf("line %d: %w", d.line(offset), fmt.Errorf(format, args...))
	}
}

func (d *document) line(offset int64) int {
	return 1 + bytes.Count(d.text[:min(int(offset), len(d.text))], []byte("\n"))
}

// offsetOf returns where the value at path is, in the text that the decoder reads.
func offsetOf(decoder *json.Decoder, path []string) int64 {
	opening, err := decoder.Token()
	for i := 0; err == nil && len(path) > 0 && decoder.More(); i++ {
		name := any(strconv.Itoa(i))
		if opening == json.Delim('{') {
			name, err = decoder.Token()
		}
		if name == path[0] {
			return offsetOf(decoder, path[1:])
		}
		var skipped json.RawMessage
		err = errors.Join(err, decoder.Decode(&skipped))
	}
	return decoder.InputOffset()
}

func (o *object) at(name string) []string { return append(slices.Clone(o.path), name) }

// fail reports what is wrong with a member.
func (o *object) fail(name, format string, args ...any) {
	o.document.fail(o.at(name), "%s %w", name, fmt.Errorf(format, args...))
}

// member returns a member. null is as good as none.
func (o *object) member(name string) (json.RawMessage, bool) {
	o.asked[name] = true
	raw, ok := o.members[name]
	return raw, ok && string(raw) != "null"
}

// text returns a member that is a string, or nothing if there is none.
func (o *object) text(name string) (text string) {
	if raw, ok := o.member(name); ok && json.Unmarshal(raw, &text) != nil {
		o.fail(name, "is not a string")
	}
	return text
}

// truth returns a member that is true or false.
func (o *object) truth(name string) (truth bool) {
	if raw, ok := o.member(name); ok && json.Unmarshal(raw, &truth) != nil {
		o.fail(name, "must be true or false")
	}
	return truth
}

// texts returns a member that is a string or an array of strings.
func (o *object) texts(name string) (texts []string) {
	raw, ok := o.member(name)
	if !ok {
		return nil
	}
	var items []*string // null is not a string.
	if raw[0] == '"' {
		return []string{o.text(name)}
	}
	if json.Unmarshal(raw, &items) != nil || slices.Contains(items, nil) {
		o.fail(name, "is neither a string nor an array of strings")
		return nil
	}
	for _, item := range items {
		texts = append(texts, *item)
	}
	return texts
}

// object returns a member that is an object. If there is none, it is an error.
func (o *object) object(name string) *object {
	raw, ok := o.member(name)
	if !ok {
		o.document.fail(o.path, "there is no %s", name)
		raw = json.RawMessage("{}")
	}
	return o.document.object(raw, o.at(name))
}

// objects returns a member that is an array of objects. If there is none, it is an error.
func (o *object) objects(name string) (list []*object) {
	var items []json.RawMessage
	if raw, ok := o.member(name); !ok || json.Unmarshal(raw, &items) != nil || len(items) == 0 {
		o.document.fail(o.path, "%s must be an array with at least one object", name)
	}
	for i, item := range items {
		list = append(list, o.document.object(item, append(o.at(name), strconv.Itoa(i))))
	}
	return list
}

// done reports members that nobody has asked for.
func (o *object) done() {
	for _, name := range slices.Sorted(maps.Keys(o.members)) {
		if !o.asked[name] {
			o.document.fail(o.at(name), "%.30q isn't a setting; see ccproxy -h", name)
		}
	}
}
