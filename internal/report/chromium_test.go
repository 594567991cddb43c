package report

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

var screenshots = flag.String("screenshots", "", "write screenshots of the page to this directory")

// TestChromium opens a page of every experiment in a real browser, on a desk and
// on a telephone, by day and by night.
func TestChromium(t *testing.T) {
	b := startChromium(t)
	s := newSynthetic(t, t.TempDir(), 3)
	s.all()
	name := filepath.Join(t.TempDir(), "report.html")
	ok(t, page(s.load()).WriteFile(name, false))
	address := (&url.URL{Scheme: "file", Path: name}).String()

	backgrounds := map[string]bool{}
	for _, width := range []int{1280, 390} {
		for _, scheme := range []string{"light", "dark"} {
			t.Run(fmt.Sprintf("%d %s", width, scheme), func(t *testing.T) {
				p := b.open(t, width, scheme, address)
				if problems := p.problems(address); len(problems) > 0 {
					t.Errorf("the page is not quiet and alone:\n%s", strings.Join(problems, "\n"))
				}
				backgrounds[evaluate[string](p, `getComputedStyle(document.body).backgroundColor`)] = true
				evaluate[any](p, `document.querySelectorAll("details").forEach(d => d.open = true)`)
				if w := evaluate[int](p, `document.documentElement.scrollWidth`); w > width {
					t.Errorf("the page is %d wide and has to be scrolled sideways", w)
				}
				if texts := evaluate[[]string](p, clashes); len(texts) > 0 {
					t.Errorf("texts that overlap or are cut off:\n%s", strings.Join(texts, "\n"))
				}
				if size := evaluate[float64](p, smallest); size < 9 {
					t.Errorf("the smallest letters of a plot have %.1f pixels", size)
				}
				evaluate[any](p, `document.querySelectorAll("details").forEach(d => d.open = d.querySelector(".plots") != null)`)
				p.shoot(fmt.Sprintf("%d-%s", width, scheme))
			})
		}
	}
	if len(backgrounds) != 2 {
		t.Errorf("light and dark have the backgrounds %v", backgrounds)
	}
}

// clashes lists texts of plots that overlap each other or leave their figure.
const clashes = `[...document.querySelectorAll("svg.plot")].flatMap(svg => {
	const outer = svg.closest("figure").getBoundingClientRect()
	const all = [...svg.querySelectorAll("text")].map(e => ({box: e.getBoundingClientRect(), text: e.textContent}))
	const where = svg.querySelector("title").textContent + ": "
	const found = all.filter(a => a.box.left < outer.left || a.box.right > outer.right || a.box.bottom > outer.bottom).map(a => where + a.text + " is cut off")
	for (const [i, a] of all.entries()) for (const b of all.slice(i + 1)) {
		const x = Math.min(a.box.right, b.box.right) - Math.max(a.box.left, b.box.left)
		const y = Math.min(a.box.bottom, b.box.bottom) - Math.max(a.box.top, b.box.top)
		if (x > 1 && y > 3) found.push(where + a.text + " and " + b.text + " overlap")
	}
	return found
})`

// smallest is the size on the screen of the smallest letters in plots.
const smallest = `Math.min(...[...document.querySelectorAll("svg.plot text")].map(e =>
	parseFloat(getComputedStyle(e).fontSize) * e.ownerSVGElement.getBoundingClientRect().width / e.ownerSVGElement.viewBox.baseVal.width))`

// A chromium is a browser that is told what to do through a pipe, in its
// DevTools protocol: JSON messages that end with a zero byte.
type chromium struct {
	t        *testing.T
	out      *os.File
	messages chan message
	last     int
}

type message struct {
	ID        int             `json:"id,omitempty"`
	SessionID string          `json:"sessionId,omitempty"`
	Method    string          `json:"method,omitempty"`
	Params    json.RawMessage `json:"params,omitempty"`
	Result    json.RawMessage `json:"result,omitempty"`
	Error     json.RawMessage `json:"error,omitempty"`
}

// startChromium starts a browser with a profile of its own, or skips the test.
func startChromium(t *testing.T) *chromium {
	if runtime.GOOS == "windows" {
		t.Skip("there is no pipe to tell it through")
	}
	var path string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		t.Skip("there is no chromium")
	}
	profile, err := os.MkdirTemp("", "kvstore-chromium-")
	ok(t, err)
	in, out, err := os.Pipe() // what we tell
	ok(t, err)
	answers, theirs, err := os.Pipe()
	ok(t, err)
	cmd := exec.CommandContext(t.Context(), path, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
		"--user-data-dir="+profile, "--remote-debugging-pipe", "about:blank")
	cmd.ExtraFiles = []*os.File{in, theirs} // as file descriptors 3 and 4
	ok(t, cmd.Start())
	in.Close()
	theirs.Close()
	b := &chromium{t: t, out: out, messages: make(chan message, 100)}
	t.Cleanup(func() {
		out.Close() // which ends it
		kill := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		kill.Stop()
		answers.Close()
		_ = os.RemoveAll(profile)
	})
	go func() {
		defer close(b.messages)
		for r := bufio.NewReader(answers); ; {
			line, err := r.ReadBytes(0)
			if err != nil {
				return
			}
			var m message
			if json.Unmarshal(line[:len(line)-1], &m) == nil {
				b.messages <- m
			}
		}
	}()
	return b
}

// next returns the next message of the browser.
func (b *chromium) next(t *testing.T) message {
	select {
	case m, open := <-b.messages:
		if !open {
			t.Fatal("chromium has ended")
		}
		return m
	case <-time.After(time.Minute):
		t.Fatal("chromium does not answer")
	}
	panic("not reached")
}

// A tab is a page in the browser.
type tab struct {
	*chromium
	t      *testing.T
	id     string
	events []message
}

// call does what a method does, and keeps the events that come meanwhile.
func (p *tab) call(method string, params any, result any) {
	p.t.Helper()
	p.last++
	encoded, err := json.Marshal(params)
	ok(p.t, err)
	request, err := json.Marshal(message{ID: p.last, SessionID: p.id, Method: method, Params: encoded})
	ok(p.t, err)
	_, err = p.out.Write(append(request, 0))
	ok(p.t, err)
	for {
		m := p.next(p.t)
		if m.ID != p.last {
			p.events = append(p.events, m)
			continue
		}
		if m.Error != nil {
			p.t.Fatalf("%s: %s", method, m.Error)
		}
		if result != nil {
			ok(p.t, json.Unmarshal(m.Result, result))
		}
		return
	}
}

type object map[string]any

// open opens an address and waits until it is loaded.
func (b *chromium) open(t *testing.T, width int, scheme, address string) *tab {
	p := &tab{chromium: b, t: t}
	var target struct {
		TargetID  string `json:"targetId"`
		SessionID string `json:"sessionId"`
	}
	p.call("Target.createTarget", object{"url": "about:blank"}, &target)
	p.call("Target.attachToTarget", object{"targetId": target.TargetID, "flatten": true}, &target)
	p.id = target.SessionID
	for _, domain := range []string{"Page", "Runtime", "Log", "Network"} {
		p.call(domain+".enable", object{}, nil)
	}
	p.call("Emulation.setDeviceMetricsOverride", object{"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}, nil)
	p.call("Emulation.setEmulatedMedia", object{"features": []object{{"name": "prefers-color-scheme", "value": scheme}}}, nil)
	p.call("Page.navigate", object{"url": address}, nil)
	for loaded := false; !loaded; {
		for _, e := range p.events {
			loaded = loaded || e.Method == "Page.loadEventFired"
		}
		if !loaded {
			p.events = append(p.events, p.next(t))
		}
	}
	evaluate[int](p, `1`) // and what it still has to say
	return p
}

// problems lists what the page said on the console, and what it asked for
// beside itself.
func (p *tab) problems(address string) []string {
	var all []string
	requests := 0
	for _, e := range p.events {
		var params struct {
			Request struct {
				URL string `json:"url"`
			} `json:"request"`
		}
		switch e.Method {
		case "Network.requestWillBeSent":
			ok(p.t, json.Unmarshal(e.Params, &params))
			if params.Request.URL == address {
				requests++
			} else if !strings.HasPrefix(params.Request.URL, "data:") {
				all = append(all, "request: "+params.Request.URL)
			}
		case "Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown":
			all = append(all, string(e.Params))
		}
	}
	if requests != 1 {
		all = append(all, fmt.Sprintf("%d requests for the page itself were seen", requests))
	}
	return all
}

// evaluate returns the value of an expression in the page.
func evaluate[T any](p *tab, expression string) (value T) {
	p.t.Helper()
	var result struct {
		Result struct {
			Value T `json:"value"`
		} `json:"result"`
		Exception json.RawMessage `json:"exceptionDetails"`
	}
	p.call("Runtime.evaluate", object{"expression": expression, "returnByValue": true}, &result)
	if result.Exception != nil {
		p.t.Fatalf("%s: %s", expression, result.Exception)
	}
	return result.Result.Value
}

// shoot writes pictures of all of the page, if that is asked for.
func (p *tab) shoot(name string) {
	if *screenshots == "" {
		return
	}
	const tall = 2000
	height := evaluate[int](p, `document.documentElement.scrollHeight`)
	width := evaluate[int](p, `innerWidth`)
	for i, at := 0, 0; at < height; i, at = i+1, at+tall {
		var shot struct {
			Data string `json:"data"`
		}
		p.call("Page.captureScreenshot", object{"captureBeyondViewport": true, "clip": object{
			"x": 0, "y": at, "width": width, "height": min(tall, height-at), "scale": 1,
		}}, &shot)
		picture, err := base64.StdEncoding.DecodeString(shot.Data)
		ok(p.t, err)
		ok(p.t, os.WriteFile(filepath.Join(*screenshots, fmt.Sprintf("%s-%02d.png", name, i)), picture, 0o666))
	}
}
