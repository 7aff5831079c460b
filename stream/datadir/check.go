package datadir

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"
)

// Check reads all of a folder, and changes nothing. Nobody may have it open. An error is that it could not be read; damage
// is in the report.
func Check(dir string) (*Report, error) {
	r := &Report{Dir: dir, Stop: Killed, logs: map[string]*log{}}
	if err := r.look(); err != nil {
		return nil, fmt.Errorf("check the embedded Kafka's folder: %w", err)
	}
	if r.Empty {
		return r, nil
	}
	var err error
	if r.repaired, err = readRepaired(dir); err != nil {
		return nil, fmt.Errorf("check the embedded Kafka's folder: %w", err)
	}
	topics, err := r.state()
	if err != nil {
		return nil, fmt.Errorf("check the embedded Kafka's folder: %w", err)
	}
	if err := r.partitions(topics); err != nil {
		return nil, fmt.Errorf("check the embedded Kafka's folder: %w", err)
	}
	r.missing(topics)
	if err := r.journals(topics); err != nil {
		return nil, fmt.Errorf("check the embedded Kafka's folder: %w", err)
	}
	r.sort()
	return r, nil
}

// look finds out what is there, and how the last broker ended.
func (r *Report) look() error {
	files, err := list(r.Dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(files) == 0 {
		_, noted := os.Stat(filepath.Join(r.Dir, noteName))
		r.Empty = errors.Is(noted, fs.ErrNotExist)
		if r.Empty {
			return nil
		}
	} else if err != nil {
		return err
	}
	r.files = files
	n, err := readNote(r.Dir)
	var broken *json.SyntaxError
	switch {
	case errors.As(err, &broken):
		r.fault(Fault{File: noteName, At: broken.Offset, What: "is not what Belfry wrote", repair: put})
	case err != nil:
		return err
	}
	r.note = n
	if _, err := os.Stat(filepath.Join(r.Dir, closedName)); err == nil {
		r.Stop = Orderly
		if n == nil && broken == nil { // it is written first
			r.fault(Fault{File: noteName, At: -1, What: "is missing, and was there when Belfry stopped", Loss: "nothing, if nothing else is missing: that cannot be told without it", repair: put})
		}
	} else if n != nil && n.Boot != boot() {
		r.Stop = Power
	}
	return nil
}

// put leaves a fault to what [Repair] does for every file.
func put(aside func(string) error) error { return nil }

// topic is one of topics.json.
type topic struct {
	Name       string            `json:"name"`
	ID         string            `json:"id"`
	Partitions int               `json:"partitions"`
	Configs    map[string]string `json:"configs"`
}

func (t topic) compacted() bool { return strings.Contains(t.Configs["cleanup.policy"], "compact") }

type topicsFile struct {
	Version int     `json:"version"`
	Topics  []topic `json:"topics"`
}

// state checks the small files, and returns the topics.
func (r *Report) state() (map[string]topic, error) {
	for _, name := range []string{metaJSON, topicsJSON, "acls.json", "sasl.json", "broker_configs.json", "quotas.json", "seq_windows.json"} {
		b, err := os.ReadFile(filepath.Join(r.Dir, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		r.small(name, b, err == nil)
	}
	topics, err := readTopics(r.Dir)
	if err != nil { // the fault is noted already
		if r.note == nil {
			return nil, nil
		}
		topics, err = parseTopics(r.note.Topics)
	}
	r.Topics = len(topics)
	return topics, err
}

func readTopics(dir string) (map[string]topic, error) {
	b, err := os.ReadFile(filepath.Join(dir, topicsJSON))
	if err != nil {
		return nil, err
	}
	return parseTopics(b)
}

func parseTopics(b []byte) (map[string]topic, error) {
	var file topicsFile
	if err := json.Unmarshal(b, &file); err != nil {
		return nil, fmt.Errorf("%s: %w", topicsJSON, err)
	}
	topics := make(map[string]topic, len(file.Topics))
	for _, t := range file.Topics {
		topics[t.Name] = t
	}
	return topics, nil
}

// small checks a file that is replaced as a whole.
func (r *Report) small(name string, b []byte, there bool) {
	f := Fault{File: name, At: -1, repair: r.anew(name), Loss: smallLoss(name)}
	var v map[string]any
	switch was, known := r.noted(name); {
	case !there:
		f.What = "is missing"
	case json.Unmarshal(b, &v) != nil:
		f.What = "cannot be read"
	case known && was.Sum != 0 && was.Sum != crc32.Checksum(b, castagnoli) && (r.Stop == Orderly || name == metaJSON):
		f.What = "was changed after Belfry stopped"
	default:
		return
	}
	r.fault(f)
}

func (r *Report) noted(path string) (noted, bool) {
	if r.note == nil {
		return noted{}, false
	}
	f, ok := r.note.Files[path]
	return f, ok
}

// partitions checks all logs, as many at a time as there are cores.
func (r *Report) partitions(topics map[string]topic) error {
	folders, err := os.ReadDir(filepath.Join(r.Dir, partitions))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, f := range folders {
		name, n, ok := partitionOf(f.Name())
		t, known := topics[name]
		if !ok || topics != nil && (!known || n >= t.Partitions) {
			r.stray(f.Name())
			continue
		}
		l := &log{report: r, folder: f.Name(), topic: t, partition: int32(n)}
		r.logs[f.Name()] = l
		g.Go(l.check)
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, l := range r.logs {
		r.Partitions++
		r.Bytes += l.bytes
		r.Records += l.end - l.start
	}
	return nil
}

// stray is a folder with records of a partition that topics.json does not have.
func (r *Report) stray(folder string) {
	for path, f := range r.files {
		if filepath.Dir(path) == filepath.Join(partitions, folder) && strings.HasSuffix(path, ".dat") && f.Size > 0 {
			r.fault(Fault{
				File: filepath.Join(partitions, folder), At: -1, What: "has records of a partition that topics.json does not have",
				Loss: "the records of this partition", repair: put,
			})
			return
		}
	}
}

// partitionOf reads a folder's name.
func partitionOf(folder string) (topic string, n int, ok bool) {
	i := strings.LastIndexByte(folder, '-')
	if i < 0 {
		return "", 0, false
	}
	topic, err := url.PathUnescape(folder[:i])
	if err != nil {
		return "", 0, false
	}
	n, err = strconv.Atoi(folder[i+1:])
	return topic, n, err == nil && n >= 0
}
