//go:build !linux

package priority

import "errors"

// Yield does nothing here.
func Yield() error { return nil }

// Realtime is not supported here.
func Realtime() (back func() error, err error) { return nil, errors.ErrUnsupported }
