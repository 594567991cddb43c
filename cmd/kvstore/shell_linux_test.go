package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestShellTerminal types into the shell on a pseudo terminal.
func TestShellTerminal(t *testing.T) {
	dir, config := filepath.Join(t.TempDir(), "d"), t.TempDir()

	term := startTerminal(t, config, "shell", "--dir", dir)
	term.expect("> ")
	term.typeText("set a \"one two\"\r")
	term.expect("\n") // the prompt is drawn again for each letter
	term.expect("> ")
	term.typeText("gte\x7f\x7fet a\r") // two backspaces
	term.expect("one two\r\n")
	term.expect("> ")
	term.typeText("\x1b[A\x1b[A\x01\x0bget nothing\r") // up, up, then clear the line
	term.expect("(not found)\r\n")
	term.expect("> ")
	term.typeText("he\t\r") // completion
	term.expect("Commands:")
	term.expect("> ")
	term.typeText("quit\r")
	term.wait(0)

	// History is kept, and Ctrl-D leaves.
	term = startTerminal(t, config, "shell", "--dir", dir)
	term.expect("> ")
	for range 3 { // quit, help, get nothing
		term.typeText("\x1b[A")
	}
	term.typeText("\r")
	term.expect("(not found)\r\n")
	term.expect("> ")
	term.typeText("set a 3\r")
	term.expect("\n") // the prompt is drawn again for each letter
	term.expect("> ")
	term.typeText("\x04")
	term.wait(0)

	// Ctrl-C leaves too, and the store is saved.
	term = startTerminal(t, config, "shell", "--dir", dir)
	term.expect("> ")
	term.typeText("get a\r")
	term.expect("3\r\n")
	term.expect("> ")
	term.typeText("set a 4\r")
	term.expect("\n") // the prompt is drawn again for each letter
	term.expect("> ")
	term.awaitRawMode()
	term.typeText("half a li\x03")
	term.wait(0)

	// A line that failed is not forgotten.
	term = startTerminal(t, config, "shell", "--dir", dir)
	term.expect("> ")
	term.typeText("put a 5\r")
	term.expect("kvstore: line 1: unknown command put")
	term.expect("> ")
	term.typeText("q\r")
	term.wait(1)

	// Whoever ends the shell at its prompt gets the terminal back as it was.
	term = startTerminal(t, config, "shell", "--dir", dir)
	term.expect("> ")
	term.typeText("get a\r")
	term.expect("4\r\n")
	term.expect("> ")
	term.awaitRawMode()
	if err := term.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	term.expect("interrupted")
	term.wait(1)
	mode, err := unix.IoctlGetTermios(int(term.screen.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	if mode.Lflag&unix.ECHO == 0 || mode.Lflag&unix.ICANON == 0 || mode.Lflag&unix.ISIG == 0 {
		t.Errorf("the terminal was left in raw mode: %#x", mode.Lflag)
	}
}

// awaitRawMode waits until keys like Ctrl-C reach the program as characters,
// which is a moment after it has shown its prompt.
func (term *terminal) awaitRawMode() {
	term.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		mode, err := unix.IoctlGetTermios(int(term.screen.Fd()), unix.TCGETS)
		if err != nil {
			term.t.Fatal(err)
		}
		if mode.Lflag&unix.ISIG == 0 {
			return
		}
		if time.Now().After(deadline) {
			term.t.Fatal("the program does not read the keyboard")
		}
	}
}

// A terminal is a program on a pseudo terminal, with the person before it.
type terminal struct {
	t      *testing.T
	cmd    *exec.Cmd
	screen *os.File // our side
	text   chan []byte
	seen   []byte // not yet expected
}

func startTerminal(t *testing.T, config string, args ...string) *terminal {
	t.Helper()
	ptmx, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no pseudo terminals here: ", err)
	}
	t.Cleanup(func() { ptmx.Close() })
	fd := int(ptmx.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80})
	}
	if err != nil {
		t.Skip("no pseudo terminals here: ", err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no pseudo terminals here: ", err)
	}
	t.Cleanup(func() { tty.Close() }) // open until the end, so that its mode can be looked at

	cmd := exec.Command("kvstore", args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.Env = append(os.Environ(), "TERM=xterm", "XDG_CONFIG_HOME="+config)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	term := &terminal{t: t, cmd: cmd, screen: ptmx, text: make(chan []byte)}
	go func() {
		defer close(term.text)
		for {
			buf := make([]byte, 4096)
			n, err := ptmx.Read(buf)
			if err != nil {
				return
			}
			term.text <- buf[:n]
		}
	}()
	return term
}

// expect waits until the screen has shown text after what was expected last.
func (term *terminal) expect(text string) {
	term.t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		if i := bytes.Index(term.seen, []byte(text)); i >= 0 {
			term.seen = term.seen[i+len(text):]
			return
		}
		select {
		case more := <-term.text:
			term.seen = append(term.seen, more...)
		case <-timeout:
			_ = term.cmd.Process.Kill()
			term.t.Fatalf("expected %q on the screen, got %q", text, strings.ToValidUTF8(string(term.seen), "?"))
		}
	}
}

func (term *terminal) typeText(text string) {
	term.t.Helper()
	if _, err := term.screen.WriteString(text); err != nil {
		term.t.Fatal(err)
	}
}

// wait waits for the end of the program.
func (term *terminal) wait(code int) {
	term.t.Helper()
	timer := time.AfterFunc(20*time.Second, func() { _ = term.cmd.Process.Kill() })
	defer timer.Stop()
	_ = term.cmd.Wait() // the status says it all
	if got := term.cmd.ProcessState.ExitCode(); got != code {
		term.t.Fatalf("exit status %d, want %d", got, code)
	}
}
