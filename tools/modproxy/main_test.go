package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestAdd has the go command download a module from the folder that add has written. The
// go command escapes upper-case letters in the path of a module.
func TestAdd(t *testing.T) {
	dir, folder := t.TempDir(), t.TempDir()
	for name, content := range map[string]string{
		"go.mod": "module example.com/Upper\n\ngo 1.25\n",
		"a.go":   "package upper\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := add(folder, "v1.2.3", dir); err != nil {
		t.Fatal(err)
	}
	download := exec.Command("go", "mod", "download", "-json", "example.com/Upper@latest")
	download.Dir = t.TempDir()
	cache := t.TempDir()
	download.Env = append(os.Environ(), "GOPROXY=file://"+folder, "GONOSUMDB=*", "GOFLAGS=-modcacherw", "GOMODCACHE="+cache)
	if out, err := download.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if _, err := os.Stat(filepath.Join(cache, "example.com", "!upper@v1.2.3", "a.go")); err != nil {
		t.Error(err)
	}
}

func TestAddErrors(t *testing.T) {
	for name, test := range map[string]struct{ goMod, version, want string }{
		"no go.mod":         {"", "v1.0.0", "go.mod"},
		"no path":           {"go 1.25\n", "v1.0.0", "malformed module path"},
		"a path nobody has": {"module a b\n", "v1.0.0", "malformed module path"},
		"a bad version":     {"module example.com/m\n", "1.0", "version"},
	} {
		dir, folder := t.TempDir(), t.TempDir()
		if test.goMod != "" {
			if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte(test.goMod), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := add(folder, test.version, dir); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, test.want)
		}
		if left, err := os.ReadDir(folder); err != nil || len(left) != 0 {
			t.Errorf("%s: left %v, %v", name, left, err)
		}
	}
}
