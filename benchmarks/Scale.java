import java.io.IOException;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.LocalFileSystem;
import org.apache.hadoop.fs.Path;
import org.apache.iceberg.AppendFiles;
import org.apache.iceberg.DataFile;
import org.apache.iceberg.DataFiles;
import org.apache.iceberg.FileScanTask;
import org.apache.iceberg.Metrics;
import org.apache.iceberg.Table;
import org.apache.iceberg.TableScan;
import org.apache.iceberg.data.IcebergGenerics;
import org.apache.iceberg.data.Record;
import org.apache.iceberg.expressions.Expressions;
import org.apache.iceberg.hadoop.HadoopTables;
import org.apache.iceberg.io.CloseableIterable;
import org.apache.iceberg.types.Conversions;
import org.apache.iceberg.types.Types;

/** Iceberg asked a million times: by py4j each call would cost more than what it asks for. */
public class Scale {
  private volatile boolean ended = false;
  private final List threads = new ArrayList();
  private final List looks = new ArrayList();
  private final AtomicInteger flying = new AtomicInteger();

  /** A data file that is not there: entries like those of a real one, with bounds of its own. */
  private DataFile entry(Table table, DataFile like, int commit, int number) {
    Map lower = new HashMap(like.lowerBounds());
    Map upper = new HashMap(like.upperBounds());
    bound(table, lower, "run_id", name(commit));
    bound(table, upper, "run_id", name(commit));
    bound(table, lower, "path", String.valueOf(1000000000000000L + number));
    bound(table, upper, "path", String.valueOf(1000000000000001L + number));
    // Without chance in them a million entries would pack better than real ones.
    java.util.Random draw = new java.util.Random(number);
    bound(table, lower, "image_id", "000" + Long.toHexString(draw.nextLong()));
    bound(table, upper, "image_id", "fff" + Long.toHexString(draw.nextLong()));
    Map sizes = new HashMap();
    for (Iterator each = like.columnSizes().keySet().iterator(); each.hasNext(); ) {
      sizes.put(each.next(), Long.valueOf(50 + draw.nextInt(20000)));
    }
    Metrics metrics =
        new Metrics(Long.valueOf(like.recordCount()), sizes, like.valueCounts(),
            like.nullValueCounts(), like.nanValueCounts(), lower, upper);
    String path = table.location() + "/data/" + java.util.UUID.randomUUID() + ".parquet";
    return DataFiles.builder(table.spec())
        .copy(like)
        .withPath(path)
        .withFileSizeInBytes(like.fileSizeInBytes() + number % 1000)
        .withMetrics(metrics)
        .build();
  }

  /** As Iceberg cuts bounds: to 16 letters. */
  private void bound(Table table, Map bounds, String column, String text) {
    String value = text.length() > 16 ? text.substring(0, 16) : text;
    Integer id = Integer.valueOf(table.schema().findField(column).fieldId());
    bounds.put(id, Conversions.toByteBuffer(Types.StringType.get(), value));
  }

  public String name(int commit) {
    return "scores-" + (10000000 + commit); // within the 16 letters of a bound
  }

  /** Commit a number of appends of so many files each; return the seconds of each. */
  public double[] append(
      Table table, String branch, DataFile like, int first, int commits, int files) {
    double[] seconds = new double[commits];
    for (int commit = 0; commit < commits; commit++) {
      DataFile[] made = new DataFile[files];
      for (int file = 0; file < files; file++) {
        made[file] = entry(table, like, first + commit, (first + commit) * files + file);
      }
      long started = System.nanoTime();
      AppendFiles append = table.newAppend();
      for (int file = 0; file < files; file++) {
        append.appendFile(made[file]);
      }
      append.toBranch(branch);
      append.commit();
      seconds[commit] = (System.nanoTime() - started) / 1e9;
    }
    return seconds;
  }

  /** Plan a scan of main, of all or of one run; return its files. */
  public List plan(Table table, String run) throws IOException {
    TableScan scan = table.newScan();
    if (run != null) {
      scan = (TableScan) scan.filter(Expressions.equal("run_id", run));
    }
    List found = new ArrayList();
    CloseableIterable tasks = scan.planFiles();
    for (Iterator each = tasks.iterator(); each.hasNext(); ) {
      found.add(each.next());
    }
    tasks.close();
    return found;
  }

  public DataFile first(Table table) throws IOException {
    CloseableIterable tasks = ((TableScan) table.newScan().includeColumnStats()).planFiles();
    return (DataFile) ((FileScanTask) tasks.iterator().next()).file();
  }

  /** Heap in use after a collection, bytes. */
  public long heap() {
    System.gc();
    return Runtime.getRuntime().totalMemory() - Runtime.getRuntime().freeMemory();
  }

  /** Make empty files, so many in each folder. */
  public void fill(String place, int files, int each) throws IOException {
    FileSystem storage = new Path(place).getFileSystem(new Configuration());
    if (storage instanceof LocalFileSystem) {
      storage = ((LocalFileSystem) storage).getRaw(); // no file of checksums beside each
    }
    for (int file = 0; file < files; file++) {
      String name = file / each + "/" + (1000000 + file) + ".png";
      storage.createNewFile(new Path(place, name));
    }
  }

  /** Start readers that load the table, plan and read main, again and again; all look by now. */
  public void read(final String location, int readers, final int rows)
      throws InterruptedException {
    ended = false;
    threads.clear();
    looks.clear();
    final CountDownLatch begun = new CountDownLatch(readers);
    for (int reader = 0; reader < readers; reader++) {
      Thread thread =
          new Thread() {
            public void run() {
              begun.countDown();
              do {
                look(location, rows);
              } while (!ended);
            }
          };
      threads.add(thread);
      thread.start();
    }
    begun.await();
  }

  private void look(String location, int rows) {
    int others = flying.incrementAndGet();
    long started = System.nanoTime();
    String seen;
    try {
      Map runs = new HashMap();
      Table table = new HadoopTables(new Configuration()).load(location);
      CloseableIterable records =
          IcebergGenerics.read(table).select(new String[] {"run_id"}).build();
      for (Iterator each = records.iterator(); each.hasNext(); ) {
        Object run = ((Record) each.next()).getField("run_id");
        Integer count = (Integer) runs.get(run);
        runs.put(run, Integer.valueOf(count == null ? 1 : count.intValue() + 1));
      }
      records.close();
      seen = String.valueOf(runs.size());
      for (Iterator each = runs.values().iterator(); each.hasNext(); ) {
        int count = ((Integer) each.next()).intValue();
        if (count != rows) {
          seen = "part: " + count + " of " + rows + " rows";
        }
      }
    } catch (Throwable error) {
      seen = "error: " + error;
    }
    double seconds = (System.nanoTime() - started) / 1e9;
    flying.decrementAndGet();
    synchronized (looks) {
      looks.add(seconds + " " + others + " " + seen);
    }
  }

  /** End the readers; return of each look its seconds, how many were under way, what was seen. */
  public List end() throws InterruptedException {
    ended = true;
    for (Iterator each = threads.iterator(); each.hasNext(); ) {
      ((Thread) each.next()).join();
    }
    return new ArrayList(looks);
  }
}
