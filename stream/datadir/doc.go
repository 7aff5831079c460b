// Package datadir knows the folder in which the embedded Kafka (kfake) keeps its records: it tells damage from what a stop
// at any moment leaves behind, before kfake opens the folder. kfake itself cuts off whatever it cannot read, and goes on
// without it.
//
// In the folder are
//
//   - meta.json, topics.json and other small files, replaced as a whole;
//   - groups.log and pids.log: positions of groups, and producers, one framed and checksummed entry after the other;
//   - partitions/TOPIC-N/OFFSET.dat: records, one batch after the other, each with a checksum; OFFSET.idx: 15 bytes for each
//     batch; snapshot.json: how the partition was when it was last stopped in good order;
//   - files.json, closed and lock, which are Belfry's: what was there when it last looked ([Note]), whether the last stop
//     was in good order, and who has the folder.
//
// [Check] only reads. What it finds is a [Tear], which every stop but an orderly one may leave, and which [Mend] takes away
// without a loss; or a [Fault], which [Repair] puts aside when somebody who knows what is lost with it says so.
package datadir
