package stream

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Refuse answers a request with one error, in all the places where its answer has any: what an embedded broker does that can write
// nothing, and what tests have one do. Of other requests than those of a commit and of a group it makes an empty answer.
func Refuse(req kmsg.Request, with *kerr.Error) kmsg.Response {
	resp := req.ResponseKind()
	switch resp := resp.(type) {
	case *kmsg.ProduceResponse:
		for _, t := range req.(*kmsg.ProduceRequest).Topics {
			topic := kmsg.ProduceResponseTopic{Topic: t.Topic, TopicID: t.TopicID}
			for _, p := range t.Partitions {
				topic.Partitions = append(topic.Partitions, kmsg.ProduceResponseTopicPartition{Partition: p.Partition, ErrorCode: with.Code, BaseOffset: -1})
			}
			resp.Topics = append(resp.Topics, topic)
		}
	case *kmsg.OffsetCommitResponse:
		for _, t := range req.(*kmsg.OffsetCommitRequest).Topics {
			topic := kmsg.OffsetCommitResponseTopic{Topic: t.Topic, TopicID: t.TopicID}
			for _, p := range t.Partitions {
				topic.Partitions = append(topic.Partitions, kmsg.OffsetCommitResponseTopicPartition{Partition: p.Partition, ErrorCode: with.Code})
			}
			resp.Topics = append(resp.Topics, topic)
		}
	case *kmsg.TxnOffsetCommitResponse:
		for _, t := range req.(*kmsg.TxnOffsetCommitRequest).Topics {
			topic := kmsg.TxnOffsetCommitResponseTopic{Topic: t.Topic, TopicID: t.TopicID}
			for _, p := range t.Partitions {
				topic.Partitions = append(topic.Partitions, kmsg.TxnOffsetCommitResponseTopicPartition{Partition: p.Partition, ErrorCode: with.Code})
			}
			resp.Topics = append(resp.Topics, topic)
		}
	case *kmsg.EndTxnResponse:
		resp.ErrorCode = with.Code
	case *kmsg.HeartbeatResponse:
		resp.ErrorCode = with.Code
	case *kmsg.JoinGroupResponse:
		resp.ErrorCode = with.Code
	case *kmsg.SyncGroupResponse:
		resp.ErrorCode = with.Code
	}
	return resp
}
