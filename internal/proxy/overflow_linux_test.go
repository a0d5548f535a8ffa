package proxy_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/daypass/daypass/internal/proxy"
)

// TestOverflowUser runs a proxy as nobody in a user namespace with one user, as a container may do.
// There the kernel calls all other users of the machine nobody, too.
func TestOverflowUser(t *testing.T) {
	const variable = "DAYPASS_TEST_OVERFLOW_USER"
	if os.Getenv(variable) != "" {
		port := free(t)
		p, log := start(t, &proxy.Map{Port: port}, os.Getuid())
		fmt.Println("PORT", port)
		_, _ = io.ReadAll(os.Stdin)
		p.Close(t.Context())
		fmt.Println(os.Getuid(), log)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestOverflowUser$")
	cmd.Env = append(os.Environ(), variable+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: []syscall.SysProcIDMap{{ContainerID: proxy.OverflowUser(), HostID: os.Getuid(), Size: 1}}}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skipf("NOT TESTED in a user namespace: %v", err)
	}
	var port int
	if _, err := fmt.Fscanf(out, "PORT %d\n", &port); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(port))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(conn, startUp)
	answer, _ := io.ReadAll(conn)
	conn.Close()
	in.Close()
	text, _ := io.ReadAll(out)
	if err := cmd.Wait(); err != nil || len(answer) != 0 || !strings.HasPrefix(string(text), strconv.Itoa(proxy.OverflowUser())+" ") || !strings.Contains(string(text), "is any user that this user namespace does not have") {
		t.Errorf("the answer is %q, %v; the proxy:\n%s", answer, err, text)
	}
}
