import java.nio.file.Files;
import java.nio.file.Path;
import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.TableEnvironment;
import org.apache.flink.table.api.TableResult;
import org.apache.flink.types.Row;
import org.apache.flink.util.CloseableIterator;

/** Runs the statements of a file on a cluster in this process, and prints the rows of each question behind its name: java -cp flink/* RunSql.java FILE */
public class RunSql {
    public static void main(String[] arguments) throws Exception {
        TableEnvironment table = TableEnvironment.create(EnvironmentSettings.newInstance().inBatchMode().build());
        table.getConfig().set("parallelism.default", "1");
        for (String statement : Files.readString(Path.of(arguments[0])).split(";\\s*\n")) {
            String name = statement.lines().filter(line -> line.startsWith("-- @")).map(line -> line.substring(4)).findFirst().orElse("");
            String sql = String.join("\n", statement.lines().filter(line -> !line.strip().startsWith("--")).toList()).strip();
            if (sql.isEmpty()) {
                continue;
            }
            long begun = System.nanoTime();
            TableResult result = table.executeSql(sql);
            if (name.isEmpty()) {
                continue;
            }
            System.out.println("@" + name + " " + String.join(",", result.getResolvedSchema().getColumnNames()));
            try (CloseableIterator<Row> rows = result.collect()) {
                rows.forEachRemaining(System.out::println);
            }
            System.err.println(name + ": " + (System.nanoTime() - begun) / 1_000_000 + " ms");
        }
    }
}
