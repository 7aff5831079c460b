package datadir

import (
	"archive/tar"
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// sumsName is the last file of a backup: the SHA-256 of each of the others.
const sumsName = "sums.json"

// Backup writes a sound folder as a tar archive. Nobody may have the folder open.
func (r *Report) Backup(w io.Writer) error {
	if err := r.Err(); err != nil {
		return err
	}
	if r.Empty {
		return fmt.Errorf("there is nothing in %s", r.Dir)
	}
	paths := slices.Collect(maps.Keys(r.files))
	for _, name := range []string{noteName, closedName, repairedName, sessionName} {
		if _, err := os.Stat(filepath.Join(r.Dir, name)); err == nil {
			paths = append(paths, name)
		}
	}
	slices.Sort(paths)
	buffered := bufio.NewWriterSize(w, 1<<20)
	archive := tar.NewWriter(buffered)
	sums := map[string]string{}
	for _, path := range paths {
		sum, err := r.pack(archive, path)
		if err != nil {
			return fmt.Errorf("back up %s: %w", path, err)
		}
		sums[path] = sum
	}
	b, err := json.Marshal(sums)
	if err != nil {
		return err
	}
	if err := archive.WriteHeader(&tar.Header{Name: sumsName, Mode: 0o600, Size: int64(len(b))}); err != nil {
		return err
	}
	_, err = archive.Write(b)
	return errors.Join(err, archive.Close(), buffered.Flush())
}

func (r *Report) pack(archive *tar.Writer, path string) (string, error) {
	f, err := os.Open(filepath.Join(r.Dir, path))
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	header := &tar.Header{Name: filepath.ToSlash(path), Mode: 0o600, Size: info.Size(), ModTime: info.ModTime()}
	if err := archive.WriteHeader(header); err != nil {
		return "", err
	}
	sum := sha256.New()
	if _, err := io.Copy(archive, io.TeeReader(f, sum)); err != nil {
		return "", err
	}
	return digest(sum), nil
}

func digest(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)) }

// Restore makes a folder of a backup. dir must be empty, or not there, and is only there when all of it has been read and
// found sound.
func Restore(dir string, from io.Reader) (*Report, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() != lockName }) {
		return nil, fmt.Errorf("%s is not empty: move it away first", dir)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return nil, err
	}
	fresh, err := os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+".restoring-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(fresh) // what became of it has another name by then
	if err := unpack(fresh, from); err != nil {
		return nil, fmt.Errorf("read the backup: %w", err)
	}
	r, err := Check(fresh)
	if err == nil {
		err = r.Err()
	}
	if err != nil {
		return nil, err
	}
	if err := NewKeeper(fresh).syncAll(); err != nil {
		return nil, err
	}
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	if err := os.Rename(fresh, dir); err != nil {
		return nil, err
	}
	r.Dir = dir
	return r, syncFile(filepath.Dir(dir))
}

// syncAll has all of a folder reach the disk, without a note.
func (k *Keeper) syncAll() error {
	return filepath.WalkDir(k.dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return syncFile(path)
	})
}

func unpack(dir string, from io.Reader) error {
	archive := tar.NewReader(bufio.NewReaderSize(from, 1<<20))
	got := map[string]string{}
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return errors.New("it ends before its checksums: it is cut off, or no backup of Belfry")
		}
		if err != nil {
			return err
		}
		if header.Name == sumsName {
			return compare(got, archive)
		}
		path := filepath.FromSlash(header.Name)
		if header.Typeflag != tar.TypeReg || !filepath.IsLocal(path) {
			return fmt.Errorf("it has %q, which no backup of Belfry has", header.Name)
		}
		if got[header.Name], err = place(filepath.Join(dir, path), archive); err != nil {
			return err
		}
	}
}

func place(path string, from io.Reader) (string, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	_, err = io.Copy(io.MultiWriter(f, sum), from)
	return digest(sum), errors.Join(err, f.Close())
}

func compare(got map[string]string, from io.Reader) error {
	var sums map[string]string
	if err := json.NewDecoder(from).Decode(&sums); err != nil {
		return fmt.Errorf("%s: %w", sumsName, err)
	}
	for path, sum := range sums {
		if got[path] != sum {
			return fmt.Errorf("%s is not what was backed up: the backup is damaged", path)
		}
	}
	if len(sums) != len(got) {
		return errors.New("it has files without a checksum: the backup is damaged")
	}
	return nil
}
