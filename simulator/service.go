package simulator

import "fmt"

// Service is one of the providers' hosts. Each listens on a port of its own and shares nothing with the others.
type Service uint8

// The services.
const (
	APNs Service = iota
	APNsSandbox
	FCM
	OAuth // where FCM's access tokens come from
	Chrome
	Mozilla
	Apple
	Windows
	Ntfy // a push server that somebody hosts: there only when the population has devices at it
	services
)

var serviceNames = [services]string{"apns", "apns-sandbox", "fcm", "oauth", "chrome", "mozilla", "apple", "windows", "ntfy"}

func (s Service) String() string { return serviceNames[s] }

// MarshalText writes a service's name.
func (s Service) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a service's name.
func (s *Service) UnmarshalText(b []byte) error {
	for i, name := range serviceNames {
		if name == string(b) {
			*s = Service(i)
			return nil
		}
	}
	return fmt.Errorf("simulator: service %q is none of %v", b, serviceNames)
}

func (s Service) platform() string {
	switch s {
	case APNs, APNsSandbox:
		return "apns"
	case FCM:
		return "fcm"
	case OAuth:
		return "oauth"
	}
	return "webpush"
}

// host is where the real one is.
func (s Service) host() string {
	return [services]string{
		"api.push.apple.com", "api.sandbox.push.apple.com", "fcm.googleapis.com", "oauth2.googleapis.com",
		"fcm.googleapis.com", "updates.push.services.mozilla.com", "web.push.apple.com", "wns2-par02p.notify.windows.com",
		"ntfy.example.org",
	}[s]
}
