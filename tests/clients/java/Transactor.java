import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.Map;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * A transactional producer that does what it is told, line by line, and prints "done" after each:
 *
 * <pre>
 * begin           begins a transaction
 * send TOPIC N    writes N records to partition 0 and waits until they are in the log
 * commit, abort   ends the transaction
 * </pre>
 */
public final class Transactor {
    private static final PrintStream OUT = new PrintStream(System.out, true, StandardCharsets.UTF_8);

    private Transactor() {
    }

    public static void main(String[] args) throws Exception {
        Map<String, Object> settings = new HashMap<>();
        settings.put("bootstrap.servers", args[0]);
        settings.put("transactional.id", args[1]);
        settings.put("key.serializer", ByteArraySerializer.class);
        settings.put("value.serializer", ByteArraySerializer.class);
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(settings)) {
            producer.initTransactions();
            BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                String[] words = line.split(" ");
                switch (words[0]) {
                    case "begin" -> producer.beginTransaction();
                    case "send" -> {
                        for (int number = 0; number < Integer.parseInt(words[2]); number++) {
                            producer.send(new ProducerRecord<>(words[1], 0, null, line.getBytes(StandardCharsets.UTF_8)));
                        }
                        producer.flush();
                    }
                    case "commit" -> producer.commitTransaction();
                    case "abort" -> producer.abortTransaction();
                    default -> throw new IllegalArgumentException(line);
                }
                OUT.println("done");
            }
        }
    }
}
