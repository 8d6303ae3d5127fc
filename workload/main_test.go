package workload

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/seed-5bfa0880/clientcredentials/internal/leakcheck"
)

// asCommand has the test program act as a command.
const asCommand = "WORKLOAD_TEST_COMMAND"

// All tests run with a proxy in the environment. Nothing answers there, so that a request to
// a metadata server would fail if it went through the proxy.
func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		command(os.Args[1], os.Args[2:])
		return
	}
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"} {
		_ = os.Setenv(name, "http://127.0.0.1:9")
	}
	leakcheck.Main(m)
}

// command is what the test program does as a command.
func command(name string, args []string) {
	switch name {
	case "print": // a Go literal
		text, err := strconv.Unquote(args[0])
		if err != nil {
			panic(err)
		}
		fmt.Print(text)
	case "variable":
		fmt.Println(os.Getenv(args[0]))
	case "stdin":
		data, err := io.ReadAll(os.Stdin)
		fmt.Println("stdin", len(data), err)
	case "pid":
		fmt.Println(os.Getpid())
	case "jwt":
		fmt.Println(jwt(map[string]any{"sub": fmt.Sprint(os.Getpid()), "exp": time.Now().Add(time.Hour).Unix()}))
	case "fail":
		fmt.Println(args[0])
		fmt.Fprintln(os.Stderr, args[0])
		os.Exit(3)
	case "endless":
		for {
			if _, err := fmt.Println(strings.Repeat("y", 1<<10)); err != nil {
				select {} // It doesn't care.
			}
		}
	case "hang": // and keep a connection open
		conn, err := net.Dial("tcp", args[0])
		if err != nil {
			panic(err)
		}
		_, _ = conn.Read(make([]byte, 1))
	case "leave", "parent": // start a process that hangs
		child := exec.Command(os.Args[0], "hang", args[0])
		child.Stdout = os.Stdout
		if err := child.Start(); err != nil {
			panic(err)
		}
		if name == "parent" {
			_ = child.Wait()
		}
	}
}
