package stream

import (
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// Mode says how outputs of one source partition that share a topic and a key go into one commit.
type Mode uint8

const (
	// Whole outputs are records of their own.
	Whole Mode = iota
	// Append outputs are joined: their values, in the order of Done, become one record's value (protobuf messages
	// concatenate), cut into several records at 512 KiB.
	Append
	// Latest outputs replace each other: the last one before the commit is written.
	Latest
)

// Output is a record that a task leaves behind. It is produced in the transaction that commits the task.
type Output struct {
	// Topic is without the cluster's prefix.
	Topic   string
	Key     []byte
	Value   []byte
	Headers []kgo.RecordHeader
	Mode    Mode
}

// Task is one record of one assignment of its partition. It ends once, by Done or Release, from any goroutine. A task
// whose assignment is over may still be ended; that does nothing, for the partition's next owner has the record again.
type Task struct {
	// Topic is without the cluster's prefix.
	Topic     string
	Partition int32
	Offset    int64
	Key       []byte
	Value     []byte
	Headers   []kgo.RecordHeader
	Timestamp time.Time

	p     *partition
	seq   uint64
	ended bool // guarded by p.mu
}

// Done ends a task with its outputs. They are produced, and its offset committed, in one transaction within the next
// 250 ms or so. It does nothing when the task has ended or its assignment is over. Values of Append outputs are copied,
// and outs itself; values of others, and keys, must not change after the call.
func (t *Task) Done(outs ...Output) { t.p.finish(t, false, outs) }

// DoneAll ends tasks of one assignment with the outputs of all of them, under one lock. It differs from Done for each only in
// that: outs are in the order in which they would have been given, none of the tasks has ended, and the slices, and the
// keys and values of Append outputs, are the caller's again when it returns.
func DoneAll(tasks []*Task, outs []Output) {
	if len(tasks) > 0 {
		tasks[0].p.finishAll(tasks, outs)
	}
}

// Release gives a task back unfinished. Whoever has the partition next handles it again: the next member, or this one
// after a restart. It is for what has not been begun when the context of Handle ends.
func (t *Task) Release() { t.p.finish(t, true, nil) }

// anew is the task as if it had not been handed over.
func (t *Task) anew() *Task {
	return &Task{
		Topic: t.Topic, Partition: t.Partition, Offset: t.Offset,
		Key: t.Key, Value: t.Value, Headers: t.Headers, Timestamp: t.Timestamp,
		p: t.p, seq: t.seq,
	}
}

// Release gives back every task of a slice.
func Release(tasks []*Task) {
	for _, t := range tasks {
		t.Release()
	}
}

// Assignment names the assignment that the task belongs to. State that a role keeps for a partition is worth nothing once
// it changes: another member may have had the partition between.
func (t *Task) Assignment() uint64 { return t.p.assignment }

// Size limits of what a dead letter keeps, in bytes.
const (
	maxDeadRaw    = 64 << 10
	maxDeadDetail = 512
)

// DeadLetter is an output that puts the record itself, which could not be read, on a topic of dead letters. detail must
// hold no token and no payload.
func (t *Task) DeadLetter(topic, reason, detail string) Output {
	letter := &pb.DeadLetter{
		Raw:    t.Value[:min(len(t.Value), maxDeadRaw)],
		Reason: reason,
		Detail: strings.ToValidUTF8(detail[:min(len(detail), maxDeadDetail)], "?"),
		LastAt: t.Timestamp.UnixMilli(),
		Source: t.Source(),
	}
	value, err := proto.Marshal(letter)
	if err != nil {
		panic("stream: encode dead letter: " + err.Error()) // every string in it is made valid above
	}
	return Output{Topic: topic, Key: t.Key, Value: value}
}

// Source is where on Kafka the record lies.
func (t *Task) Source() *pb.Source {
	return &pb.Source{Topic: t.Topic, Partition: t.Partition, Offset: t.Offset}
}
