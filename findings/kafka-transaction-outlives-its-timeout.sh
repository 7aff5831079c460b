#!/usr/bin/env bash
# Apache Kafka 4.3.1: a transaction outlives its timeout by up to ten seconds.
#
# Guess:  a producer with transaction.timeout.ms=1000 that dies in a transaction holds up those who read committed records for a
#         second: that is how long "a transaction will remain open before the coordinator proactively aborts it".
# Seen:   the coordinator looks for such transactions each transaction.abort.timed.out.transaction.cleanup.interval.ms, which is
#         10 s unless it is set. One that begins just after a look is ended by the next but for the second: its readers wait 10 s,
#         ten times the timeout. A timeout below that buys little; only a producer of the same transactional id ends it at once.
# Fails when that changes.
set -euo pipefail
dir=$(mktemp -d)
broker=
stop() {
  if [ -n "$broker" ]; then
    kill "$broker" 2>/dev/null || true
    wait "$broker" 2>/dev/null || true
  fi
  rm -rf "$dir"
}
trap stop EXIT
cd "$dir"
cat >pom.xml <<'POM'
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>finding</groupId>
  <artifactId>finding</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>4.3.1</version>
    </dependency>
  </dependencies>
</project>
POM
mvn -q -B dependency:copy-dependencies -DoutputDirectory="$dir/libs"
read -r client controller < <(python3 -c '
import socket
s = [socket.socket() for _ in range(2)]
for one in s: one.bind(("127.0.0.1", 0))
print(*(one.getsockname()[1] for one in s))')
cat >server.properties <<P
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:$client,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$client,CONTROLLER://127.0.0.1:$controller
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
controller.quorum.voters=1@127.0.0.1:$controller
log.dirs=$dir/data
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
P
java -cp "$dir/libs/*" kafka.tools.StorageTool format --cluster-id AAAAAAAAAAAAAAAAAAAAAA -c server.properties >format.log 2>&1
java -Xmx512m -cp "$dir/libs/*" kafka.Kafka server.properties >broker.log 2>&1 &
broker=$!
cat >Main.java <<'J'
import java.time.Duration;
import java.util.*;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.*;

public class Main {
    static final TopicPartition PART = new TopicPartition("t", 0);

    static KafkaProducer<String, String> producer(String at, String id) {
        Map<String, Object> config = new HashMap<>(Map.of("bootstrap.servers", at));
        if (id != null) config.putAll(Map.of("transactional.id", id, "transaction.timeout.ms", 1000));
        return new KafkaProducer<>(config, new StringSerializer(), new StringSerializer());
    }

    // A producer writes in a transaction and is not heard of again; another writes plainly. How long is that one's record not read?
    static long wait(String at, KafkaConsumer<String, String> reader, KafkaProducer<String, String> plain, String id) throws Exception {
        KafkaProducer<String, String> gone = producer(at, id);
        gone.initTransactions();
        gone.beginTransaction();
        long began = System.nanoTime();
        gone.send(new ProducerRecord<>("t", "unfinished")).get(60, TimeUnit.SECONDS);
        plain.send(new ProducerRecord<>("t", "plain")).get(60, TimeUnit.SECONDS);
        while (true) {
            for (ConsumerRecord<String, String> r : reader.poll(Duration.ofMillis(100)))
                if (r.value().equals("plain")) return TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - began);
        }
    }

    public static void main(String[] args) throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", args[0], "default.api.timeout.ms", 60000))) {
            admin.createTopics(List.of(new NewTopic("t", 1, (short) 1))).all().get(60, TimeUnit.SECONDS);
        }
        KafkaConsumer<String, String> reader = new KafkaConsumer<>(
            Map.of("bootstrap.servers", args[0], "isolation.level", "read_committed", "fetch.max.wait.ms", 100),
            new StringDeserializer(), new StringDeserializer());
        reader.assign(List.of(PART));
        reader.seekToBeginning(List.of(PART));
        KafkaProducer<String, String> plain = producer(args[0], null);
        long first = wait(args[0], reader, plain, "first"); // its end is a look of the coordinator's
        long second = wait(args[0], reader, plain, "second");
        System.err.println("the first took " + first + " ms, the second " + second);
        System.out.println("timeout 1 s: readers waited " + (second > 7000 && second < 13000 ? "for the next look, some 10 s" : second + " ms"));
        System.exit(0); // the two that are gone stay so
    }
}
J
java -cp "$dir/libs/*" Main.java "127.0.0.1:$client" 2>log | tee seen
grep "^the first took" log || { cat log >&2; exit 1; }
[ "$(cat seen)" = "timeout 1 s: readers waited for the next look, some 10 s" ] || { echo "it behaves in another way now" >&2; exit 1; }
