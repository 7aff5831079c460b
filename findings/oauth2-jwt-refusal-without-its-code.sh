#!/usr/bin/env bash
# golang.org/x/oauth2 v0.38.0: a RetrieveError of the jwt source has no ErrorCode, where the package's other sources have it.
#
# Guess:  RetrieveError.ErrorCode is "RFC 6749's 'error' parameter", so whoever logs it has invalid_grant, whatever source the token is of.
# Seen:   the clientcredentials source fills it in, from the same answer of the same server; the jwt source, which Google's service
#         accounts use, leaves it empty, and the code is in Body alone. A log that trusts it says "400 Bad Request" and no word more.
# Fails when that changes.
set -euo pipefail
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat >go.mod <<'MOD'
module finding

go 1.25
MOD
cat >main.go <<'GO'
package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
	"golang.org/x/oauth2/jwt"
)

func main() {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"error":"invalid_grant","error_description":"account not found"}`)
	}))
	defer s.Close()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	ask := func(source oauth2.TokenSource) *oauth2.RetrieveError {
		_, err := source.Token()
		var refused *oauth2.RetrieveError
		if !errors.As(err, &refused) {
			panic(fmt.Sprint("no RetrieveError: ", err))
		}
		return refused
	}
	ctx := context.Background()
	secret := ask((&clientcredentials.Config{ClientID: "a", ClientSecret: "b", TokenURL: s.URL}).TokenSource(ctx))
	signed := ask((&jwt.Config{Email: "a@example.com", PrivateKey: block, TokenURL: s.URL}).TokenSource(ctx))
	inBody := strings.Contains(string(signed.Body), "invalid_grant")
	fmt.Printf("clientcredentials: ErrorCode %q\njwt: ErrorCode %q, in its Body: %t\n", secret.ErrorCode, signed.ErrorCode, inBody)
	if secret.ErrorCode != "invalid_grant" || signed.ErrorCode != "" || !inBody {
		fmt.Println("it has changed")
		os.Exit(1)
	}
}
GO
export GOFLAGS=-mod=mod GOMODCACHE="$dir/mod" GOCACHE="$dir/cache"
go get golang.org/x/oauth2@v0.38.0 >/dev/null 2>&1
go run .
