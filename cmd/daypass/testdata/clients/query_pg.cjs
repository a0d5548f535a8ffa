// Logs on with node-postgres through a pool that asks for the password, and runs a
// parameterised query. The PG* variables say where and as whom.
const fs = require("fs");
const { Pool } = require("pg");

const pool = new Pool({
  host: process.env.PGHOST,
  port: process.env.PGPORT,
  user: process.env.PGUSER,
  database: process.env.PGDATABASE,
  password: async () => process.env.PGPASSWORD,
  ssl: { ca: fs.readFileSync(process.env.PGSSLROOTCERT), servername: process.env.PGHOST },
});
pool
  .query("SELECT current_user, session_user, $1::int + 1 AS answer", [41])
  .then((r) => console.log(r.rows[0].current_user, r.rows[0].session_user, r.rows[0].answer))
  .catch((e) => {
    console.error(e);
    process.exitCode = 1;
  })
  .finally(() => pool.end());
