// Modproxy adds a module to a folder that the go command can use as a module proxy, with
// GOPROXY=file://FOLDER:
//
//	modproxy FOLDER VERSION MODULE_DIRECTORY
//
// tools/release.sh runs it with copies of our modules before they are released. The code
// that makes the zip file, and its limits, are those that the go command uses for tags.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/zip"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: modproxy FOLDER VERSION MODULE_DIRECTORY")
		os.Exit(2)
	}
	if err := add(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "modproxy:", err)
		os.Exit(1)
	}
}

// add writes the files that https://go.dev/ref/mod#goproxy-protocol describes.
func add(folder, version, dir string) error {
	goMod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		return err
	}
	m := module.Version{Path: modfile.ModulePath(goMod), Version: version}
	escaped, err := module.EscapePath(m.Path)
	if err != nil {
		return err
	}
	info, err := json.Marshal(map[string]any{"Version": version, "Time": time.Now().UTC()})
	if err != nil {
		return err
	}
	var archive bytes.Buffer
	if err := zip.CreateFromDir(&archive, m, dir); err != nil {
		return err
	}
	base := filepath.Join(folder, filepath.FromSlash(escaped), "@v")
	if err := os.MkdirAll(base, 0o750); err != nil {
		return err
	}
	for name, data := range map[string][]byte{
		"list":            []byte(version + "\n"),
		version + ".info": info,
		version + ".mod":  goMod,
		version + ".zip":  archive.Bytes(),
	} {
		if err := os.WriteFile(filepath.Join(base, name), data, 0o600); err != nil {
			return err
		}
	}
	fmt.Printf("%s %s: %d KiB\n", m.Path, version, archive.Len()>>10)
	return nil
}
