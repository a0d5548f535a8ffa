import java.sql.*;
import java.util.Properties;

/** Logs on with a JDBC driver, PostgreSQL's or Redshift's, and runs a parameterised query. */
public class Query {
    public static void main(String[] args) throws Exception {
        String scheme = args[0];
        if (scheme.equals("redshift")) Class.forName("com.amazon.redshift.jdbc.Driver");
        Properties p = new Properties();
        p.setProperty("user", System.getenv("PGUSER"));
        p.setProperty("password", System.getenv("PGPASSWORD"));
        p.setProperty("ssl", "true");
        p.setProperty("sslmode", System.getenv("PGSSLMODE"));
        p.setProperty("sslrootcert", System.getenv("PGSSLROOTCERT"));
        String url = "jdbc:" + scheme + "://" + System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/" + System.getenv("PGDATABASE");
        try (Connection c = DriverManager.getConnection(url, p);
                PreparedStatement s = c.prepareStatement("SELECT current_user, session_user, ?::int + 1")) {
            // More often than pgjdbc's prepareThreshold, so that the last are named statements.
            for (int i = 0; i < 7; i++) {
                s.setInt(1, 41);
                try (ResultSet r = s.executeQuery()) {
                    r.next();
                    if (i == 6) System.out.println(r.getString(1) + " " + r.getString(2) + " " + r.getInt(3));
                }
            }
        }
    }
}
