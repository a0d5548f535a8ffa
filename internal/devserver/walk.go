package devserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/redshift"
	"github.com/aws/smithy-go"
	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/internal/quote"
)

// walk goes through the main steps once, with the AWS SDK and a PostgreSQL driver that
// know nothing of Daypass, and prints the results. An unexpected result is an error.
func (d *dev) walk(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	w := &walk{
		stop: stop,
		ctx:  ctx,
		dev:  d,
		out:  d.opts.Stdout,
		aws: redshift.New(redshift.Options{
			BaseEndpoint: aws.String(d.endpointURL()),
			Region:       exampleRegion,
			Credentials:  credentials.NewStaticCredentialsProvider(d.key.ID, d.key.Secret.Reveal(), ""),
		}),
	}
	defer w.close()
	w.withGroup()
	w.withoutGroup()
	w.sideBySide()
	w.autoCreate()
	w.refusals()
	return errors.Join(w.errs...)
}

type walk struct {
	ctx   context.Context
	stop  context.CancelFunc
	dev   *dev
	out   io.Writer
	aws   *redshift.Client
	conns []*pgx.Conn
	errs  []error

	group, plain *pgx.Conn // alice in analysts, and alice alone
}

func (w *walk) withGroup() {
	w.title("ana asks for alice's credential, in the group analysts, and logs on")
	w.group = w.logon(&redshift.GetClusterCredentialsInput{DbUser: aws.String("alice"), DbGroups: []string{"analysts"}})
	w.query(w.group, "SELECT current_user, session_user", "IAM:alice:analysts | IAM:alice:analysts")
	w.query(w.group, "SELECT region, sum(amount) FROM sales GROUP BY region ORDER BY region", "north | 64.40", "south | 24.50", "west | 310.00")
}

func (w *walk) withoutGroup() {
	w.title("Without the group she is alice alone: no sales, and of the events her own, by row security")
	w.plain = w.logon(&redshift.GetClusterCredentialsInput{DbUser: aws.String("alice")})
	w.query(w.plain, "SELECT current_user, session_user", "alice | IAM:alice")
	w.query(w.plain, "SELECT owner, what FROM events ORDER BY id", "alice | counted the kettles", "alice | sold the samovar")
	w.refused(w.plain, "SELECT * FROM sales", pgerrcode.InsufficientPrivilege)
}

func (w *walk) sideBySide() {
	w.title("The two sessions stand side by side, and the group is still in the first one only")
	w.query(w.group, "SELECT count(*) FROM sales", "4")
	w.refused(w.plain, "SELECT count(*) FROM sales", pgerrcode.InsufficientPrivilege)
}

func (w *walk) autoCreate() {
	w.title("A database user that does not exist yet is made at the logon, where AutoCreate is asked for and allowed")
	conn := w.logon(&redshift.GetClusterCredentialsInput{DbUser: aws.String(exampleIAMUser), AutoCreate: aws.Bool(true)})
	w.query(conn, "SELECT current_user, session_user", exampleIAMUser+" | IAM:"+exampleIAMUser)
}

func (w *walk) refusals() {
	w.title("What the policy does not allow is refused, with the reason")
	w.denied(&redshift.GetClusterCredentialsInput{DbUser: aws.String("alice"), DbGroups: []string{"finance"}},
		"statement FinanceIsForOthers", "redshift:JoinGroup", "dbgroup:"+exampleCluster+"/finance", "with an explicit deny in an identity-based policy")
	w.denied(&redshift.GetClusterCredentialsInput{DbUser: aws.String("bob")},
		"no statement", "redshift:GetClusterCredentials", "dbuser:"+exampleCluster+"/bob", "because no identity-based policy allows the redshift:GetClusterCredentials action")
	w.denied(&redshift.GetClusterCredentialsInput{DbUser: aws.String("alice"), AutoCreate: aws.Bool(true)},
		"no statement", "redshift:CreateClusterUser", "dbuser:"+exampleCluster+"/alice", "because no identity-based policy allows the redshift:CreateClusterUser action")
}

// ask fills in the parameters that all calls share, prints the call and makes it.
func (w *walk) ask(in *redshift.GetClusterCredentialsInput) (*redshift.GetClusterCredentialsOutput, error) {
	in.ClusterIdentifier, in.DbName = aws.String(exampleCluster), aws.String(exampleDatabase)
	line := "GetClusterCredentials ClusterIdentifier=" + exampleCluster + " DbName=" + exampleDatabase + " DbUser=" + *in.DbUser
	if len(in.DbGroups) > 0 {
		line += " DbGroups=" + strings.Join(in.DbGroups, ",")
	}
	if in.AutoCreate != nil {
		line += fmt.Sprintf(" AutoCreate=%t", *in.AutoCreate)
	}
	w.say("aws> %s", line)
	return w.aws.GetClusterCredentials(w.ctx, in)
}

// logon requests a credential and logs on with it. It returns nil if a step failed.
func (w *walk) logon(in *redshift.GetClusterCredentialsInput) *pgx.Conn {
	out, err := w.ask(in)
	if err != nil {
		w.fault("%v", err)
		return nil
	}
	user, password := aws.ToString(out.DbUser), aws.ToString(out.DbPassword)
	w.say("     DbUser %s, DbPassword of %d characters, valid until %s",
		user, len(password), aws.ToTime(out.Expiration).Format(time.RFC3339))
	conninfo, err := w.dev.conninfo("x")
	if err != nil {
		w.fault("%v", err)
		return nil
	}
	config, err := pgx.ParseConfig(strings.Replace(conninfo, " hostaddr=127.0.0.1", "", 1))
	if err != nil {
		w.fault("%v", err)
		return nil
	}
	// Set these last, so that the environment cannot override them.
	config.Host, config.Port, config.Fallbacks = "127.0.0.1", uint16(w.dev.gatewayPort()), nil
	config.User, config.Password, config.Database = user, password, exampleDatabase
	config.RuntimeParams = map[string]string{"application_name": "daypass dev"}
	began := time.Now()
	conn, err := pgx.ConnectConfig(w.ctx, config)
	if err != nil {
		w.fault("%v", err)
		return nil
	}
	w.conns = append(w.conns, conn)
	w.say("psql> connected as %s to localhost:%d/%s in %d ms", user, w.dev.gatewayPort(), exampleDatabase, time.Since(began).Milliseconds())
	return conn
}

// query runs a query that has to return exactly the given rows.
func (w *walk) query(conn *pgx.Conn, sql string, want ...string) {
	if conn == nil {
		return
	}
	w.say("psql> %s", sql)
	got, err := rowTexts(w.ctx, conn, sql)
	if err != nil {
		w.fault("%v", err)
		return
	}
	for _, row := range got {
		w.say("      %s", row)
	}
	if !slices.Equal(got, want) {
		w.fault("want %q", want)
	}
}

// refused runs a query that PostgreSQL has to refuse.
func (w *walk) refused(conn *pgx.Conn, sql, state string) {
	if conn == nil {
		return
	}
	w.say("psql> %s", sql)
	_, err := rowTexts(w.ctx, conn, sql)
	refusal, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || refusal.Code != state {
		w.fault("%v, want SQLSTATE %s", err, state)
		return
	}
	w.say("      ERROR:  %s (SQLSTATE %s)", refusal.Message, refusal.Code)
}

// denied makes a call that IAM has to refuse, by the given statement and with all the given
// parts in the reason.
func (w *walk) denied(in *redshift.GetClusterCredentialsInput, by string, reason ...string) {
	_, err := w.ask(in)
	var refusal smithy.APIError
	var response *http.ResponseError
	if !errors.As(err, &refusal) || refusal.ErrorCode() != "AccessDenied" || !errors.As(err, &response) {
		w.fault("%v, want AccessDenied", err)
		return
	}
	w.say("     %s: %s", refusal.ErrorCode(), refusal.ErrorMessage())
	for _, part := range reason {
		if !strings.Contains(refusal.ErrorMessage(), part) {
			w.fault("the reason lacks %q", part)
		}
	}
	decided, err := decidedBy(filepath.Join(w.dev.dirs.server, "audit"), response.ServiceRequestID())
	if err != nil {
		w.fault("%v", err)
		return
	}
	w.say("     The audit log says: %s.", decided)
	if !strings.HasPrefix(decided, by) {
		w.fault("want %s", by)
	}
}

// decidedBy looks up in the audit log which statement refused a request.
func decidedBy(dir, requestID string) (string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil {
		return "", err
	}
	for _, file := range slices.Backward(files) {
		data, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		for line := range strings.Lines(string(data)) {
			var record struct {
				RequestID           string `json:"requestID"`
				AdditionalEventData struct {
					Decisions []struct{ Effect, Policy, Sid string }
				}
			}
			if err := json.Unmarshal([]byte(line), &record); err != nil {
				return "", fmt.Errorf("reading the audit log: %w", err)
			}
			if record.RequestID != requestID {
				continue
			}
			for _, decision := range record.AdditionalEventData.Decisions {
				switch {
				case decision.Effect == "Allow":
				case decision.Sid != "":
					return "statement " + decision.Sid + " of " + decision.Policy + " decided", nil
				default:
					return "no statement allows it", nil
				}
			}
		}
	}
	return "", fmt.Errorf("the audit log has no decision about request %s", requestID)
}

// rowTexts runs a query and returns its rows as text, with " | " between columns.
func rowTexts(ctx context.Context, conn *pgx.Conn, sql string) ([]string, error) {
	results, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, err
	}
	var rows []string
	for _, result := range results {
		for _, values := range result.Rows {
			texts := make([]string, len(values))
			for i, v := range values {
				texts[i] = string(v)
			}
			rows = append(rows, strings.Join(texts, " | "))
		}
	}
	return rows, nil
}

func (w *walk) title(text string) { w.say("\n%s.\n", text) }

// say prints a line. It ends the walk if the output is closed.
func (w *walk) say(format string, args ...any) {
	if _, err := fmt.Fprintln(w.out, quote.TerminalText(fmt.Sprintf(format, args...))); err != nil && w.ctx.Err() == nil {
		w.errs = append(w.errs, err)
		w.stop()
	}
}

// fault reports a failed step. The walk continues.
func (w *walk) fault(format string, args ...any) {
	if errors.Is(w.ctx.Err(), context.Canceled) {
		return // the interruption caused it
	}
	err := fmt.Errorf(format, args...)
	w.say("     WRONG: %v", err)
	w.errs = append(w.errs, err)
}

func (w *walk) close() {
	for _, conn := range w.conns {
		_ = conn.Close(context.WithoutCancel(w.ctx)) // the walk is over either way
	}
}
