package natsstore

import (
	"encoding/json"
	"errors"
	"time"
)

// entryFormat is the format of the values in the bucket. Values in other formats are left
// alone.
const entryFormat = 1

// An entry is the value that the bucket has for a credential. It is a single value, so
// that each change is one compare-and-swap. All times are the server's. The record, lease
// and cooldown are replaced, never modified.
type entry struct {
	Format   int       `json:"format"`
	Record   *record   `json:"record,omitempty"`
	Lease    *lease    `json:"lease,omitempty"`
	Cooldown *cooldown `json:"cooldown,omitempty"`

	revision uint64 // of the value; 0: there never was a value
}

type record struct {
	Version string    `json:"version"`
	Data    []byte    `json:"data"`
	Apart   bool      `json:"apart,omitempty"` // the data is a separate value, at dataKey
	End     time.Time `json:"end"`
}

type lease struct {
	Owner string    `json:"owner"`
	End   time.Time `json:"end"`
}

type cooldown struct {
	Note []byte    `json:"note"`
	End  time.Time `json:"end"`
}

// dataKey returns the key of a large record's data. Each record has its own, so that a
// publisher that has lost its lease overwrites nothing.
func dataKey(key, version string) string { return key + "." + version }

var errForeign = errors.New("it has a value that this version can't read; delete the value, or use another bucket")

func decode(value []byte, revision uint64) (entry, error) {
	e := entry{revision: revision}
	if len(value) == 0 {
		return e, nil
	}
	if err := json.Unmarshal(value, &e); err != nil || e.Format != entryFormat {
		return entry{}, errForeign // Leave out the cause, which might quote the value.
	}
	return e, nil
}

func (e entry) encode() ([]byte, error) {
	e.Format = entryFormat
	return json.Marshal(e)
}

// expire removes the record, the lease and the cooldown if their time is over.
func (e *entry) expire(now time.Time) {
	if e.Record != nil && !e.Record.End.After(now) {
		e.Record = nil
	}
	if e.Lease != nil && !e.Lease.End.After(now) {
		e.Lease = nil
	}
	if e.Cooldown != nil && !e.Cooldown.End.After(now) {
		e.Cooldown = nil
	}
}

// isStale reports whether version is that of the record.
func (e *entry) isStale(version string) bool { return version != "" && e.Record.Version == version }

// isLeasedTo reports whether owner holds the lease.
func (e *entry) isLeasedTo(owner string) bool { return e.Lease != nil && e.Lease.Owner == owner }
