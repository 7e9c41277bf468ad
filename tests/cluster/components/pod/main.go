// The program of the image docker.io/swiftbalancer/test-pod:1. It is what holds a pod's namespaces open (`pod pause`)
// and all that the harness's own tests need inside a pod: a web server of a folder and a client.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const usage = "pod pause | pod serve FOLDER ADDRESS | pod get URL"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "pod:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	switch {
	case len(arguments) == 1 && arguments[0] == "pause":
		pause()
		return nil
	case len(arguments) == 3 && arguments[0] == "serve":
		go pause()
		return http.ListenAndServe(arguments[2], http.FileServer(http.Dir(arguments[1])))
	case len(arguments) == 2 && arguments[0] == "get":
		return get(arguments[1])
	}
	return fmt.Errorf("usage: %s", usage)
}

// pause ends the process at the first request to stop and reaps the orphans that a shared process namespace leaves to it.
func pause() {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGCHLD)
	for received := range signals {
		if received != syscall.SIGCHLD {
			os.Exit(0)
		}
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
	}
}

// get prints the body of a page; an answer other than 200 is an error.
func get(url string) error {
	response, err := (&http.Client{Timeout: 5 * time.Second}).Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, response.Status)
	}
	_, err = io.Copy(os.Stdout, response.Body)
	return err
}
