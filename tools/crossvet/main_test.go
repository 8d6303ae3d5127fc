package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, content := range map[string]string{
		"go.mod":         "module example.com/m\n\ngo 1.25\n",
		"m.go":           "package m\n\nfunc f(i int) int { return i << 40 }\n",
		"m_386.go":       "package m\n\nconst large int = 1 << 40\n",
		"m_linux.go":     "package m\n\nfunc g() {}\n",
		"m_test.go":      "package m\n\nfunc h() { g() }\n",
		"x/x_windows.go": "package x\n\nimport _ \"example.com/m/y\"\n",
		"y/y_linux.go":   "package y\n",
	} {
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
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
