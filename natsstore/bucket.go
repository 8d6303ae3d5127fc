package natsstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// This file accesses the bucket. It doesn't use jetstream.KeyValue, for two reasons:
//
//   - A KeyValue reads from any server of the cluster that has a copy, even if that copy
//     lacks the last writes. A replica could get a lease, and then be told that it has
//     none.
//   - Getting a KeyValue takes an answer of the servers, and a service has to start while
//     they are down.
//
// The names of streams, subjects and headers are those of
// https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-8.md.

// maxReply is the largest answer to a read that is decoded. The largest one that this
// package causes has about 200 KiB: a note of 100 KiB, encoded twice in base64. The
// client has already read an answer by then. What it reads at most is up to the server:
// see the package documentation.
const maxReply = 512 << 10

// A message is what the bucket has at a key. The zero value means that there is nothing.
type message struct {
	Sequence uint64    `json:"seq"`
	Data     []byte    `json:"data"` // empty: the value was deleted
	Time     time.Time `json:"time"` // when it was written
}

var (
	errNoBucket = errors.New("the Store needs a JetStream and the name of a Bucket")
	errNoTime   = errors.New("the server doesn't report its time; NATS 2.10 or later is needed")
	errLarge    = errors.New("it has a value that is larger than those of this package; delete the value, and give the bucket a max-value-size")
	errName     = errors.New("keys and versions must consist of letters and digits")
)

// stream returns the name of the bucket's stream.
func (s *Store) stream() (string, error) {
	if s.JetStream == nil || !isPlain(s.Bucket, "-_") {
		return "", errNoBucket
	}
	return "KV_" + s.Bucket, nil
}

// subject returns the subject of a key. The key must not contain other characters: a space
// or a line end would become part of the protocol.
func (s *Store) subject(key string) (string, error) {
	if !isPlain(key, ".") {
		return "", errName
	}
	return "$KV." + s.Bucket + "." + key, nil
}

// isPlain reports whether s consists of letters, digits and the characters in more, and
// isn't empty.
func isPlain(s, more string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && !strings.ContainsRune(more, r)
	})
}

// apiPrefix returns what the subjects of JetStream's API begin with.
func (s *Store) apiPrefix() string {
	options := s.JetStream.Options()
	switch {
	case options.Domain != "":
		return "$JS." + options.Domain + ".API."
	case options.APIPrefix != "":
		return strings.TrimSuffix(options.APIPrefix, ".") + "."
	}
	return jetstream.DefaultAPIPrefix
}

// now returns the server's time. It asks the server if the last answer is too old.
func (s *Store) now(ctx context.Context) (time.Time, error) {
	if now, ok := s.clock.now(); ok {
		return now, nil
	}
	name, err := s.stream()
	if err != nil {
		return time.Time{}, err
	}
	sent := s.clock.read()
	stream, err := s.JetStream.Stream(ctx, name)
	if err != nil {
		return time.Time{}, err
	}
	now := stream.CachedInfo().TimeStamp
	if now.IsZero() {
		return time.Time{}, errNoTime
	}
	s.clock.set(sent, now)
	return now, nil
}

// get reads the value at key from the stream's leader. The default timeout of the JetStream
// applies, as for all of its calls: a server doesn't answer a user without permission.
func (s *Store) get(ctx context.Context, key string) (message, error) {
	name, err := s.stream()
	if err != nil {
		return message{}, err
	}
	subject, err := s.subject(key)
	if err != nil {
		return message{}, err
	}
	request, err := json.Marshal(map[string]string{"last_by_subj": subject})
	if err != nil {
		return message{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.JetStream.Options().DefaultTimeout)
	defer cancel()
	reply, err := s.JetStream.Conn().RequestWithContext(ctx, s.apiPrefix()+"STREAM.MSG.GET."+name, request)
	if err != nil {
		return message{}, err
	}
	if len(reply.Data) > maxReply {
		return message{}, errLarge
	}
	var response struct {
		Message message             `json:"message"`
		Error   *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(reply.Data, &response); err != nil {
		return message{}, fmt.Errorf("the server's answer is not the expected JSON: %w", err)
	}
	switch {
	case response.Error == nil && response.Message.Sequence == 0:
		return message{}, errors.New("the server's answer has no message")
	case response.Error == nil:
		return response.Message, nil
	case response.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return message{}, nil
	}
	return message{}, response.Error
}

// put writes value to key. It returns lost if the last value isn't the one that an option
// expects, because another replica has written since.
func (s *Store) put(ctx context.Context, key string, value []byte, options ...jetstream.PublishOpt) (lost bool, err error) {
	m := &nats.Msg{Data: value, Header: nats.Header{}}
	err = s.publish(ctx, key, m, options...)
	var api *jetstream.APIError
	if errors.As(err, &api) && slices.Contains(lostCodes, api.ErrorCode) {
		return true, nil
	}
	return false, err
}

// lostCodes are the errors of a server for a lost race. Which of them it returns depends on
// the number of copies of the bucket. Old versions of nats.go have no name for the second.
var lostCodes = []jetstream.ErrorCode{jetstream.JSErrCodeStreamWrongLastSequence, 10164}

// purge removes the value at key. The bucket keeps a marker without data in its place.
func (s *Store) purge(ctx context.Context, key string) error {
	return s.publish(ctx, key, &nats.Msg{Header: nats.Header{
		"KV-Operation":      {"PURGE"},
		jetstream.MsgRollup: {jetstream.MsgRollupSubject},
	}})
}

// publish writes m to key.
func (s *Store) publish(ctx context.Context, key string, m *nats.Msg, options ...jetstream.PublishOpt) (err error) {
	if m.Subject, err = s.subject(key); err != nil {
		return err
	}
	if prefix := s.apiPrefix(); prefix != jetstream.DefaultAPIPrefix {
		m.Subject = prefix + m.Subject
	}
	_, err = s.JetStream.PublishMsg(ctx, m, options...)
	return err
}
