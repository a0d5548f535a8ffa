package login

import (
	"errors"
	"os/exec"
	"runtime"
	"strings"
)

// OpenBrowser asks the system to open an address. browser is the value of BROWSER: a command, or on
// Unix several with colons in between, of which the first that starts is used. %s stands for the
// address, which is otherwise the last argument.
func OpenBrowser(address, browser string) error {
	var errs []error
	for _, command := range browserCommands(runtime.GOOS, address, browser) {
		cmd := exec.Command(command[0], command[1:]...)
		err := cmd.Start()
		if err == nil {
			go func() { _ = cmd.Wait() }()
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func browserCommands(system, address, browser string) (all [][]string) {
	list := []string{browser}
	if system != "windows" {
		list = strings.Split(browser, ":")
	}
	for _, one := range list {
		if strings.TrimSpace(one) == "" {
			continue
		}
		command := []string{one} // the path of a program may have spaces in it
		if _, err := exec.LookPath(one); err != nil {
			command = strings.Fields(strings.TrimSuffix(strings.TrimSpace(one), "&"))
		}
		placed := false
		for i, word := range command {
			placed = placed || strings.Contains(word, "%s")
			command[i] = strings.ReplaceAll(word, "%s", address)
		}
		if !placed {
			command = append(command, address)
		}
		all = append(all, command)
	}
	if all != nil {
		return all
	}
	switch system {
	case "darwin":
		return [][]string{{"open", address}}
	case "windows":
		return [][]string{{"rundll32", "url.dll,FileProtocolHandler", address}}
	}
	return [][]string{{"xdg-open", address}}
}
