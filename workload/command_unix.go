//go:build unix

package workload

import (
	"os/exec"
	"syscall"
)

// killTogether puts a command into a process group of its own, and has the whole group killed.
func killTogether(command *exec.Cmd) {
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGKILL) }
}
