package webpush

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/belfry/belfry/senders/exchange"
)

// A subscription's endpoint is a URL that a stranger's browser names and we then post to. So it may lead to no host of
// our own network (SSRF): the form is checked before anything is sent, and the address after it was resolved, at the
// moment of dialling, when a name can no longer change what it means.

// Bounds in characters; maxHost is DNS's (RFC 1035 section 2.3.4, less the lengths).
const (
	maxEndpoint = 2048
	maxHost     = 253
)

// allowed holds host:port of what may be asked whatever its address, and in plain http.
type allowed map[string]bool

func newAllowed(hosts []string) (allowed, error) {
	a := make(allowed, len(hosts))
	for _, h := range hosts {
		host, port, err := net.SplitHostPort(h)
		if err != nil {
			host, port = strings.Trim(h, "[]"), "443"
		}
		host = strings.ToLower(host)
		if n, err := strconv.ParseUint(port, 10, 16); host == "" || !plainHost(host) || err != nil || n == 0 {
			return nil, fmt.Errorf("allow_hosts: %q is not host or host:port", h)
		}
		a[net.JoinHostPort(host, port)] = true
	}
	return a, nil
}

// parse checks an endpoint's form and parts its origin from the rest. The origin is in canonical form, as VAPID's audience
// must be: scheme and host in lower case, the port only where it is not the scheme's. Errors do not hold the endpoint,
// which is a secret.
func (a allowed) parse(endpoint string) (origin, rest string, err error) {
	if origin, rest, usual := cut(endpoint); usual {
		return origin, rest, nil
	}
	return a.parseAny(endpoint)
}

func (a allowed) parseAny(endpoint string) (origin, rest string, err error) {
	if len(endpoint) > maxEndpoint {
		return "", "", fmt.Errorf("the endpoint is longer than %d bytes", maxEndpoint)
	}
	u, err := url.Parse(endpoint)
	if err != nil {
		return "", "", errors.New("the endpoint is not a URL")
	}
	host, port := strings.ToLower(u.Hostname()), u.Port()
	usual := map[string]string{"https": "443", "http": "80"}[u.Scheme]
	switch {
	case usual == "" || host == "" || u.User != nil || u.Fragment != "":
		return "", "", errors.New("the endpoint is not a plain https URL")
	case !plainHost(host):
		return "", "", errors.New("the endpoint's host is not a plain name or address")
	case port == "":
		port = usual
	}
	if !a[net.JoinHostPort(host, port)] {
		if err := strict(u.Scheme, host, port); err != nil {
			return "", "", err
		}
	}
	if origin = net.JoinHostPort(host, port); port == usual {
		origin = strings.TrimSuffix(origin, ":"+port)
	}
	return u.Scheme + "://" + origin, u.RequestURI(), nil
}

// cut parts an endpoint as browsers write them: https, a name in lower case, no port, and nothing in the path that could be
// written in another way. It is what parse makes of it, a hundred times faster; of any other it says that it is not usual.
func cut(endpoint string) (origin, rest string, usual bool) {
	const scheme = "https://"
	if len(endpoint) > maxEndpoint || !strings.HasPrefix(endpoint, scheme) {
		return "", "", false
	}
	slash := strings.IndexByte(endpoint[len(scheme):], '/')
	if slash < 1 || slash > maxHost {
		return "", "", false
	}
	origin, rest = endpoint[:len(scheme)+slash], endpoint[len(scheme)+slash:]
	name := false // not an address
	for _, c := range []byte(origin[len(scheme):]) {
		switch {
		case 'a' <= c && c <= 'z':
			name = true
		case '0' <= c && c <= '9', c == '-', c == '.', c == '_':
		default:
			return "", "", false
		}
	}
	path, query, _ := strings.Cut(rest, "?")
	return origin, rest, name && unreserved(path, false) && unreserved(query, true)
}

// unreserved says that all of s means itself in a URL (RFC 3986 sections 2.3 and 3.3), or in a query is left as it is.
func unreserved(s string, query bool) bool {
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '.', c == '_', c == '~', c == '/', c == ':', c == '=':
		case query && (c == '%' || c == '&' || c == '+'):
		default:
			return false
		}
	}
	return true
}

// strict is for hosts that are not on the list.
func strict(scheme, host, port string) error {
	if scheme != "https" {
		return errors.New("the endpoint is not https, and its host is not in allow_hosts")
	}
	// Below 1024 lie the services that were never meant to be posted to.
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n != 443 && n < 1024 {
		return errors.New("the endpoint's port is neither 443 nor 1024 or above, and its host is not in allow_hosts")
	}
	if ip, err := netip.ParseAddr(host); err == nil && !public(ip) {
		return errors.New("the endpoint's address is not public, and its host is not in allow_hosts")
	}
	return nil
}

// plainHost keeps odd forms from meaning one thing here and another to a resolver.
func plainHost(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return !strings.Contains(host, "%") // no IPv6 zone
	}
	for _, c := range []byte(host) {
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '.', c == '_':
		default:
			return false
		}
	}
	return len(host) <= maxHost
}

// errPrivate is what a dial to an address that is not public fails with.
var errPrivate = errors.New("the endpoint's host resolves to an address that is not public, and is not in allow_hosts")

// free dials any address, guarded only those that are public.
var (
	free    = &net.Dialer{Timeout: 10 * time.Second}
	guarded = &net.Dialer{Timeout: 10 * time.Second, Control: onlyPublic}
)

// transport speaks HTTP/2, or HTTP/1.1 to services that are run by their users. No proxy: it would resolve names itself.
func (a allowed) transport(config *tls.Config) *http.Transport {
	return &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if a[strings.ToLower(addr)] {
				return free.DialContext(ctx, network, addr)
			}
			return guarded.DialContext(ctx, network, addr)
		},
		TLSClientConfig:     config.Clone(),
		TLSHandshakeTimeout: 10 * time.Second,
		ForceAttemptHTTP2:   true,
		// Enough for an HTTP/1.1 service; for HTTP/2 it bounds the dials at a time, not the connections.
		MaxConnsPerHost:        8,
		MaxIdleConns:           256,
		MaxIdleConnsPerHost:    8,
		IdleConnTimeout:        5 * time.Minute,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true,
		HTTP2:                  exchange.Pings(),
	}
}

// onlyPublic sees the address that the name was resolved to, right before the connection is made.
func onlyPublic(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil || !public(ap.Addr()) {
		return errPrivate
	}
	return nil
}

// reserved are the ranges that no push service on the internet has, beyond what net/netip tells by itself (IANA's special
// purpose registries), and a metadata service that hides on a public address.
var reserved = func() []netip.Prefix {
	list := []string{
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15",
		"198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
		"168.63.129.16/32", // Azure's metadata and DNS
		"::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16", "fec0::/10",
	}
	out := make([]netip.Prefix, len(list))
	for i, s := range list {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}()

// nat64 holds an IPv4 address in its last four bytes (RFC 6052), and is as public as that.
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// public tells an address that anybody on the internet has from one of a network of our own.
func public(ip netip.Addr) bool {
	ip = ip.Unmap()
	if nat64.Contains(ip) {
		b := ip.As16()
		ip = netip.AddrFrom4([4]byte(b[12:]))
	}
	if !ip.IsGlobalUnicast() || ip.IsPrivate() || ip.IsLoopback() || ip.IsLinkLocalUnicast() || ip.Zone() != "" {
		return false
	}
	for _, r := range reserved {
		if r.Contains(ip) {
			return false
		}
	}
	return true
}
