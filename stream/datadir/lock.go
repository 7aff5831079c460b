package datadir

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// Lock takes a folder for this process, and makes it if need be. Closing the file gives it back, as does the end of the
// process.
func Lock(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("data folder %s is in use by another belfry: stop that one, or set data_dir to another folder", dir)
	}
	return f, nil
}
