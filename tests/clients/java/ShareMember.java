import java.nio.charset.StandardCharsets;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.apache.kafka.clients.consumer.AcknowledgeType;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaShareConsumer;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicIdPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * A member of a share group that does what it is told, line by line:
 *
 * <pre>
 * poll MS         polls once; prints "record PARTITION OFFSET DELIVERIES" for each, then "polled COUNT"
 * TYPE OFFSET     acknowledges the record at OFFSET of the last poll: accept, release, reject, renew
 * commit          sends the acknowledgements; prints "committed" or "failed WHY"
 * close           leaves
 * </pre>
 */
public final class ShareMember {
    private static final PrintStream OUT = new PrintStream(System.out, true, StandardCharsets.UTF_8);

    private ShareMember() {
    }

    public static void main(String[] args) throws Exception {
        Map<String, Object> settings = new HashMap<>();
        settings.put("bootstrap.servers", args[0]);
        settings.put("group.id", args[1]);
        settings.put("share.acknowledgement.mode", "explicit");
        settings.put("max.poll.records", Integer.parseInt(args[3]));
        settings.put("key.deserializer", ByteArrayDeserializer.class);
        settings.put("value.deserializer", ByteArrayDeserializer.class);
        Map<String, ConsumerRecord<byte[], byte[]>> last = new HashMap<>();
        try (KafkaShareConsumer<byte[], byte[]> consumer = new KafkaShareConsumer<>(settings)) {
            consumer.subscribe(List.of(args[2].split(",")));
            BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                String[] words = line.split(" ");
                switch (words[0]) {
                    case "poll" -> poll(consumer, Duration.ofMillis(Long.parseLong(words[1])), last);
                    case "commit" -> commit(consumer);
                    case "close" -> {
                        return;
                    }
                    default -> consumer.acknowledge(last.get(words[1]), AcknowledgeType.valueOf(words[0].toUpperCase()));
                }
            }
        }
    }

    private static void poll(
        KafkaShareConsumer<byte[], byte[]> consumer, Duration time, Map<String, ConsumerRecord<byte[], byte[]>> last) {
        ConsumerRecords<byte[], byte[]> records = consumer.poll(time);
        for (ConsumerRecord<byte[], byte[]> record : records) {
            last.put(String.valueOf(record.offset()), record);
            OUT.printf("record %d %d %d%n", record.partition(), record.offset(),
                record.deliveryCount().orElse((short) 0));
        }
        OUT.printf("polled %d%n", records.count());
    }

    private static void commit(KafkaShareConsumer<byte[], byte[]> consumer) {
        Map<TopicIdPartition, Optional<KafkaException>> results = consumer.commitSync();
        for (Optional<KafkaException> result : results.values()) {
            if (result.isPresent()) {
                OUT.printf("failed %s%n", result.get().getClass().getSimpleName());
                return;
            }
        }
        OUT.println("committed");
    }
}
