package clientsettings

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// Version returns what a command says for -version: its name and its version, and how it was
// built.
func Version(command string) string {
	version := "(devel)"
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		version = info.Main.Version
	}
	return fmt.Sprintf("%s %s (%s %s/%s)", command, version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
