// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

// Command person plays somebody who was sent a link that tctl users add has
// printed: it opens the page, chooses a password, adds the second factor to an
// authenticator of its own, and then runs a command that logs in, at a terminal,
// and types there what it is asked for.
//
//	person https://proxy:3080/web/invite/... tsh login --proxy=proxy --user=alice
//
// It is a part of the demo, and no browser: it takes the proxy's certificate
// unseen, as whoever clicks the browser's warning away.
package main

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pquerna/otp/totp"
	"golang.org/x/sys/unix"
)

const codePeriod = 30 * time.Second

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "ERROR: usage: person LINK COMMAND [ARGUMENT...]")
		os.Exit(2)
	}
	password := rand.Text()
	secret, used, err := accept(os.Args[1], password)
	if err != nil {
		fmt.Fprintf(os.Stderr, "ERROR: accepting the invitation: %v\n", err)
		os.Exit(1)
	}
	code := ""
	if secret != "" {
		// The code of the page is used up. The next one is taken half a minute
		// early, as a clock may be off by that much.
		if code, err = totp.GenerateCode(secret, used.Add(codePeriod)); err != nil {
			fmt.Fprintf(os.Stderr, "ERROR: making a code: %v\n", err)
			os.Exit(1)
		}
	}
	if err := login(exec.Command(os.Args[2], os.Args[3:]...), password, code); err != nil {
		fmt.Fprintf(os.Stderr, "ERROR: %s: %v\n", strings.Join(os.Args[2:], " "), err)
		os.Exit(1)
	}
}

// accept fills in the page's form. It returns the secret of the second factor,
// if there is one, and when its first code was made.
func accept(link, password string) (secret string, used time.Time, err error) {
	page, err := url.Parse(link)
	if err != nil {
		return "", used, err
	}
	browser := &http.Client{
		Timeout:   10 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
	}
	text, err := read(browser.Get(link))
	if err != nil {
		return "", used, err
	}
	form := url.Values{}
	for _, input := range regexp.MustCompile(`<input[^>]*>`).FindAllString(text, -1) {
		switch name := attribute(input, "name"); name {
		case "password", "again":
			form.Set(name, password)
		case "code":
			shown := regexp.MustCompile(`<code class="secret"[^>]*>([A-Z2-7 ]+)</code>`).FindStringSubmatch(text)
			if shown == nil {
				return "", used, fmt.Errorf("the page asks for a code and shows no secret")
			}
			secret, used = strings.ReplaceAll(shown[1], " ", ""), time.Now()
			code, err := totp.GenerateCode(secret, used)
			if err != nil {
				return "", used, err
			}
			form.Set(name, code)
		default:
			form.Set(name, attribute(input, "value"))
		}
	}
	request, err := http.NewRequest(http.MethodPost, link, strings.NewReader(form.Encode()))
	if err != nil {
		return "", used, err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("Origin", page.Scheme+"://"+page.Host)
	_, err = read(browser.Do(request))
	return secret, used, err
}

func read(response *http.Response, err error) (string, error) {
	if err != nil {
		return "", err
	}
	defer response.Body.Close() //nolint:errcheck // it was read only
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("the page answers %s", response.Status)
	}
	return string(text), err
}

func attribute(tag, name string) string {
	if found := regexp.MustCompile(`\b` + name + `="([^"]*)"`).FindStringSubmatch(tag); found != nil {
		return found[1]
	}
	return ""
}

// login runs the command at a terminal of its own and shows what it shows.
func login(cmd *exec.Cmd, password, code string) error {
	master, slave, err := terminal()
	if err != nil {
		return fmt.Errorf("opening a terminal: %w", err)
	}
	defer master.Close() //nolint:errcheck // nothing is in it any more
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: syscall.SIGKILL}
	err = cmd.Start()
	_ = slave.Close() // it is the command's now
	if err != nil {
		return err
	}
	var line []byte
	buf := make([]byte, 4096)
	for {
		n, err := master.Read(buf)
		_, _ = os.Stdout.Write(bytes.ReplaceAll(buf[:n], []byte("\r\n"), []byte("\n"))) // shown or not, the login goes on
		line = append(line, buf[:n]...)
		if end := bytes.LastIndexByte(bytes.TrimRight(line, "\r\n"), '\n'); end >= 0 {
			line = line[end+1:]
		}
		answer := ""
		if question := strings.TrimSpace(string(line)); strings.HasSuffix(question, ":") {
			switch {
			case strings.Contains(question, "assword"):
				answer = password
			case strings.Contains(question, "OTP"):
				answer = code
			}
		}
		if answer != "" {
			line = nil
			awaitNoEcho(master)
			if _, err := io.WriteString(master, answer+"\n"); err != nil {
				return err
			}
		}
		if err != nil {
			return cmd.Wait() // the command has closed the terminal
		}
	}
}

// awaitNoEcho waits, for a second at most, until the command no longer shows what
// is typed: it asks before that.
func awaitNoEcho(master *os.File) {
	for range 100 {
		settings, err := unix.IoctlGetTermios(int(master.Fd()), unix.TCGETS)
		if err != nil || settings.Lflag&unix.ECHO == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// terminal returns both ends of a new one.
func terminal() (master, slave *os.File, err error) {
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	fd := int(master.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|syscall.O_NOCTTY, 0)
	}
	if err != nil {
		_ = master.Close()
		return nil, nil, err
	}
	return master, slave, nil
}
