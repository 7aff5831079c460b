#!/usr/bin/env bash
# Apache Kafka 4.3.1: min.insync.replicas above a topic's number of replicas refuses nothing.
#
# Guess:  a topic of one replica with min.insync.replicas=3 takes no record with acks=all: NOT_ENOUGH_REPLICAS, as its documentation
#         says of fewer than three in-sync replicas. Whoever wants to see what a client does then sets it too high.
# Seen:   the setting is taken, is shown by describe, and the record is acknowledged: the broker counts with the smaller of the
#         setting and the replicas that there are. A typing error in it protects nothing and nobody hears of it; a fault test that
#         relies on it has no fault.
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
P
java -cp "$dir/libs/*" kafka.tools.StorageTool format --cluster-id AAAAAAAAAAAAAAAAAAAAAA -c server.properties >format.log 2>&1
java -Xmx512m -cp "$dir/libs/*" kafka.Kafka server.properties >broker.log 2>&1 &
broker=$!
cat >Main.java <<'J'
import java.util.*;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.StringSerializer;

public class Main {
    public static void main(String[] args) throws Exception {
        Map<String, Object> conf = new HashMap<>(Map.of("bootstrap.servers", args[0], "request.timeout.ms", 5000,
            "default.api.timeout.ms", 60000, "delivery.timeout.ms", 10000, "acks", "all", "linger.ms", 0));
        try (Admin admin = Admin.create(conf)) {
            NewTopic topic = new NewTopic("orders", 1, (short) 1).configs(Map.of("min.insync.replicas", "3"));
            admin.createTopics(List.of(topic)).all().get(60, TimeUnit.SECONDS);
            ConfigResource name = new ConfigResource(ConfigResource.Type.TOPIC, "orders");
            System.out.println("min.insync.replicas is "
                + admin.describeConfigs(List.of(name)).all().get().get(name).get("min.insync.replicas").value());
        }
        try (Producer<String, String> producer = new KafkaProducer<>(conf, new StringSerializer(), new StringSerializer())) {
            try {
                System.out.println("acknowledged at offset " + producer.send(new ProducerRecord<>("orders", "1", "one")).get().offset());
            } catch (Exception e) {
                System.out.println("refused: " + e.getCause());
            }
        }
    }
}
J
java -cp "$dir/libs/*" Main.java "127.0.0.1:$client" 2>/dev/null | tee seen
[ "$(cat seen)" = "min.insync.replicas is 3
acknowledged at offset 0" ] || { echo "it behaves in another way now" >&2; exit 1; }
