package audit_test

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/audit"
)

func benchRecord() audit.CallRecord {
	return audit.CallRecord{
		EventSource: "redshift.amazonaws.com", EventName: "GetClusterCredentials", Region: "us-east-1", AccountID: "123456789012",
		RequestID: "a6a0a5a4-aaaa-4000-8000-000000000001",
		Identity:  audit.Identity{Type: "IAMUser", PrincipalID: "AIDAEXAMPLEEXAMPLE000", ARN: "arn:aws:iam::123456789012:user/ana", AccountID: "123456789012", UserName: "ana"},
		UserAgent: "aws-cli/2.15 md/Botocore#1.34",
		Request: []audit.Field{
			audit.String("clusterIdentifier", "examplecluster"), audit.String("dbUser", "alice"), audit.Int("durationSeconds", 900), audit.Bool("autoCreate", true),
		},
		Response:     []audit.Field{audit.String("dbUser", "IAMA:alice"), audit.Hidden("dbPassword")},
		CredentialID: "01KDVZ2M00T5BVDGQH2Y7CJ4XR",
		Decisions: []audit.Decision{
			{Action: "redshift:GetClusterCredentials", Resource: "arn:aws:redshift:us-east-1:123456789012:dbuser:examplecluster/alice", Effect: "Allow", Layer: "identity-based policy", Policy: "etl", Sid: "Logon"},
		},
	}
}

// BenchmarkCall writes from 8 goroutines to a real file, synced as in service.
func BenchmarkCall(b *testing.B) {
	w, err := audit.Open(b.TempDir(), time.Now)
	check(b, err)
	const callers = 8
	took := make([][]time.Duration, callers)
	var wg sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	for g := range callers {
		wg.Go(func() {
			for range b.N/callers + 1 {
				start := time.Now()
				if err := put(w, benchRecord()); err != nil {
					b.Error(err)
				}
				took[g] = append(took[g], time.Since(start))
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	all := slices.Sorted(slices.Values(slices.Concat(took...)))
	b.ReportMetric(float64(len(all))/b.Elapsed().Seconds(), "lines/s")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-µs")
	b.ReportMetric(float64(all[len(all)-1].Microseconds()), "max-µs")
	s := w.Stats()
	b.ReportMetric(float64(s.Lines)/float64(s.Writes), "lines/write")
	check(b, w.Close())
}
