#!/usr/bin/env bash
# Apache Kafka 4.3.1: a topic's own file.delete.delay.ms says nothing of the topic's own deletion.
#
# Guess:  a topic made with file.delete.delay.ms=1000 has its files closed and deleted a second after the topic is: that is the
#         setting's description, "the time to wait before deleting a file from the filesystem", and it can be set by topic.
# Seen:   DeleteTopics is answered, the topic is gone from the metadata, and each of its partitions keeps its descriptor (and two
#         memory maps) for the broker's log.segment.delete.delay.ms, a minute unless it is set (20 s here, to see the end). The
#         topic's value is for segments that retention deletes. A test suite that makes and deletes topics quickly runs its broker
#         into the limit of open files, and there the broker ends.
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
log.segment.delete.delay.ms=20000
P
java -cp "$dir/libs/*" kafka.tools.StorageTool format --cluster-id AAAAAAAAAAAAAAAAAAAAAA -c server.properties >format.log 2>&1
java -Xmx512m -cp "$dir/libs/*" kafka.Kafka server.properties >broker.log 2>&1 &
broker=$!
cat >Main.java <<'J'
import java.nio.file.*;
import java.util.*;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import org.apache.kafka.clients.admin.*;

public class Main {
    static long open(String broker) throws Exception {
        long n = 0;
        try (DirectoryStream<Path> all = Files.newDirectoryStream(Path.of("/proc", broker, "fd"))) {
            for (Path one : all) {
                try {
                    if (Files.readSymbolicLink(one).toString().contains("/short-lived-")) n++;
                } catch (NoSuchFileException gone) {
                }
            }
        }
        return n;
    }

    public static void main(String[] args) throws Exception {
        String broker = args[1];
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", args[0], "default.api.timeout.ms", 60000))) {
            NewTopic topic = new NewTopic("short-lived", 50, (short) 1).configs(Map.of("file.delete.delay.ms", "1000"));
            admin.createTopics(List.of(topic)).all().get(60, TimeUnit.SECONDS);
            for (int i = 0; open(broker) < 50 && i < 300; i++) Thread.sleep(100);
            System.out.println("with the topic: " + open(broker) + " open");
            admin.deleteTopics(List.of("short-lived")).all().get(60, TimeUnit.SECONDS);
            while (admin.listTopics().names().get().contains("short-lived")) Thread.sleep(100);
            Thread.sleep(8000);
            System.out.println("8 s after it is gone: " + open(broker) + " open");
            int waited = 0;
            for (; open(broker) > 0 && waited < 600; waited++) Thread.sleep(100);
            System.out.println("after the broker's 20 s: " + open(broker) + " open");
        }
    }
}
J
java -cp "$dir/libs/*" Main.java "127.0.0.1:$client" "$broker" 2>/dev/null | tee seen
[ "$(cat seen)" = "with the topic: 50 open
8 s after it is gone: 50 open
after the broker's 20 s: 0 open" ] || { echo "it behaves in another way now" >&2; exit 1; }
