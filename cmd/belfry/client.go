package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/belfry/belfry/producer"
)

// client calls the HTTP API for the commands that a person uses from anywhere.
type client struct {
	server string
	key    string
}

// flags tells a command where the API is and with which key to call it.
func (c *client) flags(cmd *cobra.Command) {
	server := os.Getenv("BELFRY_SERVER")
	if server == "" {
		server = "http://127.0.0.1:8080"
	}
	cmd.PersistentFlags().StringVar(&c.server, "server", server, "address of the API (also BELFRY_SERVER)")
	cmd.PersistentFlags().StringVar(&c.key, "key", "", "API key; better in BELFRY_KEY, where other users of the machine do not see it")
}

// request sends one call. It fails with what the API says of a refused one; otherwise the caller closes the body.
func (c *client) request(ctx context.Context, method, path string, header http.Header, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.server, "/")+"/v1"+path, body)
	if err != nil {
		return nil, fmt.Errorf("--server %s: %w", c.server, err)
	}
	if header != nil {
		req.Header = header
	}
	key := c.key
	if key == "" {
		key = os.Getenv("BELFRY_KEY")
	}
	if key == "" {
		return nil, errors.New("no API key: set BELFRY_KEY, or give --key")
	}
	req.Header.Set("Authorization", "Bearer "+key)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("call the API, whose address --server or BELFRY_SERVER gives: %w", err)
	}
	if resp.StatusCode >= 300 {
		defer resp.Body.Close()
		return nil, problemOf(resp)
	}
	return resp, nil
}

// problemOf makes an error of a refusal, with the fields at fault.
func problemOf(resp *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	var p producer.Problem
	if err != nil || json.Unmarshal(body, &p) != nil || p.Detail == "" {
		return fmt.Errorf("the API answers %s", resp.Status)
	}
	text := p.Detail
	for _, f := range p.Errors {
		text += "\n  " + faultText(f)
	}
	return errors.New(text)
}

// faultText says what is wrong, after the field that it is wrong with, unless that is the whole.
func faultText(f producer.Fault) string {
	if f.Field == "" {
		return f.Text
	}
	return f.Field + ": " + f.Text
}

// call sends in as JSON, unless it is nil or bytes that are JSON already, and decodes the answer into out, unless nil.
func (c *client) call(ctx context.Context, method, path string, in, out any) error {
	header := http.Header{}
	var body io.Reader
	if in != nil {
		raw, ok := in.([]byte)
		if !ok {
			var err error
			if raw, err = json.Marshal(in); err != nil {
				return fmt.Errorf("encode request: %w", err)
			}
		}
		body = bytes.NewReader(raw)
		header.Set("Content-Type", "application/json")
	}
	if method == http.MethodPost {
		header.Set("Idempotency-Key", rand.Text())
	}
	resp, err := c.request(ctx, method, path, header, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("read the API's answer: %w", err)
	}
	return nil
}

func pathOf(parts ...string) string {
	var b strings.Builder
	for _, p := range parts {
		b.WriteString("/" + url.PathEscape(p))
	}
	return b.String()
}

// show prints a value as JSON: on one line for scripts, indented for people.
func show(cmd *cobra.Command, v any, asJSON bool) error {
	e := json.NewEncoder(cmd.OutOrStdout())
	e.SetEscapeHTML(false)
	if !asJSON {
		e.SetIndent("", "  ")
	}
	return e.Encode(v)
}

func jsonFlag(cmd *cobra.Command, asJSON *bool) {
	cmd.Flags().BoolVar(asJSON, "json", false, "print JSON on one line")
}

func clientCommands() []*cobra.Command {
	c := &client{}
	commands := []*cobra.Command{sendCommand(c), campaignCommand(c), devicesCommand(c), eventsCommand(c), deadCommand(c), replayCommand(c)}
	for _, cmd := range commands {
		c.flags(cmd)
	}
	return commands
}

// openInput opens a file, or standard input for "-".
func openInput(cmd *cobra.Command, name string) (io.ReadCloser, int64, error) {
	if name == "-" {
		return io.NopCloser(cmd.InOrStdin()), 0, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}
