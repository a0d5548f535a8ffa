package login

import (
	"os/exec"
	"runtime"
)

// OpenBrowser asks the system to open an address. It reports no error, because the address has
// been shown to the person as well.
func OpenBrowser(address, browser string) {
	command := []string{"xdg-open", address}
	switch {
	case browser != "":
		command = []string{browser, address}
	case runtime.GOOS == "darwin":
		command = []string{"open", address}
	case runtime.GOOS == "windows":
		command = []string{"rundll32", "url.dll,FileProtocolHandler", address}
	}
	cmd := exec.Command(command[0], command[1:]...)
	if cmd.Start() == nil {
		go func() { _ = cmd.Wait() }()
	}
}
