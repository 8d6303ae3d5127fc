package main

import (
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
)

const module = `
-- go.mod --
module example.com/m

go 1.25
-- m.go --
package m

func f(i int) int { return i << 40 }
-- m_386.go --
package m

const large int = 1 << 40
-- m_linux.go --
package m

func g() {}
-- m_test.go --
package m

func h() { g() }
-- x/x_windows.go --
package x

import _ "example.com/m/y"
-- y/y_linux.go --
package y
`

func TestCheck(t *testing.T) {
	t.Chdir(t.TempDir())
	files, err := txtar.FS(txtar.Parse([]byte(module)))
	if err == nil {
		err = os.CopyFS(".", files)
	}
	if err != nil {
		t.Fatal(err)
	}
	for platform, want := range map[string][]string{
		"linux/386":     {"m_386.go:3:19: cannot use 1 << 40"},
		"linux/arm":     {"m.go:3:28: i (32 bits) too small for shift of 40"},
		"windows/amd64": {"build constraints exclude all Go files in", "m_test.go:3:12: undefined: g", "x_windows.go:3:10: could not import example.com/m/y"},
	} {
		got, err := check(platform)
		if !slices.EqualFunc(got, want, strings.Contains) {
			t.Errorf("%s: got %q, %v; want %q", platform, got, err, want)
		}
	}
	for _, platform := range []string{"linux", "plan10/amd64"} {
		if _, err := check(platform); err == nil {
			t.Errorf("%s isn't an error", platform)
		}
	}
}
