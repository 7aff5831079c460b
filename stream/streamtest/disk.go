package streamtest

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/belfry/belfry/stream"
)

// SmallDisk is a folder on a file system of so many bytes. Where none can be mounted the test is skipped.
func SmallDisk(t testing.TB, size int) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can mount a small disk")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Skipf("mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// OnSmallDisk is an embedded Kafka with the plan's topics on a disk of so many bytes, and the folder where that is.
func OnSmallDisk(t testing.TB, size int) (_ *stream.Kafka, disk string) {
	t.Helper()
	disk = SmallDisk(t, size)
	e, err := stream.OpenEmbedded(stream.EmbeddedOptions{Dir: filepath.Join(disk, "kafka"), Log: Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	k := cluster(t, nil)
	e.Attach(k)
	create(t, k, nil)
	return k, disk
}
