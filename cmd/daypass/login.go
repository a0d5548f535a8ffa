package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/daypass/daypass/internal/awsconfig"
	"github.com/daypass/daypass/internal/client"
	"github.com/daypass/daypass/internal/login"
	"github.com/daypass/daypass/internal/quote"
)

func newLoginCommand(env environment) *cobra.Command {
	var api callerFlags
	var remote, device bool
	cmd := &cobra.Command{
		Use:   "login",
		Short: "Sign in at the browser with your company's account",
		Long: `Login opens the browser, where you sign in with your company's account and choose
an IAM role. It does what "aws login" does, without the AWS CLI, and leaves the same:
keys of 15 minutes in ~/.aws/login/cache, which AWS CLI, SDKs and daypass refresh in
silence for the working day, and a profile in ~/.aws/config that names the server and
the file of --ca-bundle.

For a machine without a browser, such as one that you reach by SSH, there are two ways:

--device prints an address and a short code. Open the address in any browser, sign in,
enter the code, compare what the page shows (this machine's name and address), choose an
IAM role and press Allow. The command waits for that, 10 minutes at most, and fails (254)
if you press Deny or the code expires. Never enter a code that someone has sent you.

--remote prints a longer address, and you paste the code that the browser shows. Paste
it into your own terminal only.`,
		Example: `  daypass login --endpoint-url https://daypass.example.com --region us-east-1 --profile work
  daypass login --profile work
  daypass login --profile work --device
  daypass login --profile work --remote`,
		Args: noWords,
		RunE: func(cmd *cobra.Command, _ []string) error {
			found, err := api.findServer(cmd.Context(), env)
			if err != nil {
				return err
			}
			how := browserHere
			switch {
			case device:
				how = codeToType
			case remote:
				how = codeToPaste
			}
			bundle, err := api.absoluteBundle()
			if err != nil {
				return err
			}
			return env.signIn(cmd.Context(), found, how, bundle)
		},
	}
	cmd.Flags().BoolVar(&remote, "remote", false, "print the address and ask for a code, in place of opening a browser here")
	cmd.Flags().BoolVar(&device, "device", false, "print an address and a code to enter there, in place of opening a browser here")
	cmd.MarkFlagsMutuallyExclusive("remote", "device")
	api.register(cmd.Flags(), "AWS_ENDPOINT_URL_SIGNIN, AWS_ENDPOINT_URL")
	return cmd
}

// findServer is find for commands that need no access key. If flags give everything else, the
// profile need not exist yet.
func (f *callerFlags) findServer(ctx context.Context, env environment) (awsconfig.Found, error) {
	path, err := awsconfig.File(os.Getenv)
	if err != nil {
		return awsconfig.Found{}, err
	}
	found, err := f.load(ctx, env, "signin")
	if err != nil && f.profile != "" && f.endpointURL != "" && f.region != "" && !login.HasProfile(path, f.profile) {
		named := *f
		named.profile = ""
		if found, err = named.load(ctx, env, "signin"); err == nil {
			found.Profile = awsconfig.Profile{Name: f.profile}
		}
		return found, err
	}
	var failed *exitError
	if f.profile != "" && errors.As(err, &failed) && !login.HasProfile(path, f.profile) {
		err = &exitError{failed.code, fmt.Errorf("%w\n(to sign in to a new profile, name the server with --endpoint-url and --region)", failed.err)}
	}
	return found, err
}

// way is how a person signs in.
type way int

const (
	browserHere way = iota
	codeToPaste     // from a browser elsewhere into this terminal
	codeToType      // from this terminal into a browser elsewhere
)

// absoluteBundle returns the CA bundle of the flag for a profile, which is read from any directory.
func (f *callerFlags) absoluteBundle() (string, error) {
	if f.caBundle == "" {
		return "", nil
	}
	return filepath.Abs(awsconfig.ExpandPath(f.caBundle))
}

// signIn signs the person in at the browser and saves the result. bundle is the CA bundle that the
// profile gets, or "".
func (env environment) signIn(ctx context.Context, found awsconfig.Found, how way, bundle string) error {
	if err := login.CheckProfile(found.Profile.Name, found.Profile.Exists(), found.Profile.Setting); err != nil {
		return &exitError{awsconfig.ExitConfiguration, err}
	}
	cache, err := login.CacheDir(os.Getenv)
	path := ""
	if err == nil {
		path, err = awsconfig.File(os.Getenv)
	}
	if err == nil {
		err = login.CheckFiles(cache, path)
	}
	if err != nil {
		return &exitError{awsconfig.ExitConfiguration, err}
	}
	if warning := servicesWarning(found); warning != "" {
		fmt.Fprintln(env.stderr, warning)
	}
	session, err := env.signInBy(ctx, found, how)
	if err != nil {
		return err
	}
	name, err := login.NameFor(path, found.Profile.Name, session.ARN, found.Endpoint)
	if err == nil {
		err = session.Save(cache, name)
	}
	if err == nil {
		err = login.Profile{Name: found.Profile.Name, Session: name, Region: found.SDK.Region, Endpoint: found.Endpoint,
			CABundle: bundle, Services: found.Profile.Setting("services")}.Save(path)
	}
	if err != nil {
		return &exitError{awsconfig.ExitConfiguration, fmt.Errorf("keeping the sign-in: %w", err)}
	}
	if before := found.Profile.Setting(awsconfig.LoginSession); before != "" && before != name && !login.HasSession(path, before) {
		_, _ = login.Forget(cache, before)
	}
	fmt.Fprintf(env.stderr, "You are signed in as %s, in the profile %s.\n", quote.Terminal(session.ARN), quote.Terminal(found.Profile.Name))
	if os.Getenv("AWS_ACCESS_KEY_ID") != "" {
		fmt.Fprintf(env.stderr, "AWS_ACCESS_KEY_ID is set and takes precedence over the sign-in: unset it, or give each command --profile %s.\n", quote.Terminal(found.Profile.Name))
	}
	return nil
}

// signInBy signs the person in and returns the session.
func (env environment) signInBy(ctx context.Context, found awsconfig.Found, how way) (*login.Session, error) {
	config := login.Config{Endpoint: found.Endpoint, HTTP: found.SDK.HTTPClient, Now: env.now}
	if how == codeToType {
		machine, _ := os.Hostname() // without a name the page shows "daypass"
		wait := env.wait
		if wait == nil {
			wait = login.Wait
		}
		session, err := login.SignInDevice(ctx, login.Device{Config: config, Name: strings.TrimSuffix("daypass-"+machine, "-"), Wait: wait,
			ShowCode: func(page, code string, expires time.Time) {
				fmt.Fprintf(env.stderr, "Open this page in a browser, on any machine:\n\n%s\n\nand enter this code there, before %s. No one else needs it:\n\n%s\n\n",
					quote.Terminal(page), expires.Local().Format("15:04:05"), quote.Terminal(code))
			}})
		if errors.Is(err, login.ErrDenied) || errors.Is(err, login.ErrExpired) {
			err = &exitError{awsconfig.ExitService, err}
		}
		return session, callFailed(err)
	}
	config.Show = func(address string) {
		text := "The browser opens. If it does not, open this address on this machine, or use --device:"
		if how == codeToPaste {
			text = "Open this address in a browser, on any machine:"
		}
		fmt.Fprintf(env.stderr, "%s\n\n%s\n\n", text, quote.Terminal(address))
	}
	config.Open = func(address string) {
		if err := login.OpenBrowser(address, os.Getenv("BROWSER")); err != nil {
			fmt.Fprintf(env.stderr, "No browser could be started (%s): open the address yourself, or name a browser in BROWSER.\n\n", quote.Terminal(err.Error()))
		}
	}
	if how == codeToPaste {
		config.Paste = env.pastedCode
	}
	session, err := login.SignIn(ctx, config)
	return session, callFailed(err)
}

// servicesWarning returns what is missing in a profile with a services section of its own, which
// signIn does not change, or "".
func servicesWarning(found awsconfig.Found) string {
	section, endpoint := found.ServiceEndpoint("signin")
	if section == "" || section == "daypass-"+found.Profile.Name || strings.TrimRight(endpoint, "/") == strings.TrimRight(found.Endpoint, "/") {
		return ""
	}
	calls := "at Amazon"
	if endpoint != "" {
		calls = "at " + quote.Terminal(endpoint)
	}
	return fmt.Sprintf("Warning: profile %s: the SDK for Go will refresh its keys %s, because of the section [services %s]. Write into that section:\n\n  signin =\n    endpoint_url = %s\n",
		quote.Terminal(found.Profile.Name), calls, quote.Terminal(section), quote.Terminal(found.Endpoint))
}

// pastedCode prompts for the code on the terminal, or reads a line of standard input.
func (env environment) pastedCode(ctx context.Context) (string, error) {
	if in, out, err := openTerminal(); err == nil {
		defer in.Close()
		return askHidden(ctx, in, out, "Code (it is not shown): ")
	}
	line, err := bufio.NewReader(env.stdin).ReadString('\n')
	if line = strings.TrimSpace(line); line == "" {
		return "", errors.Join(errors.New("no code was entered"), err)
	}
	return line, nil
}

// signInIfNeeded signs in if the profile belongs to a person who has not signed in or whose sign-in
// has expired. It reports whether it has signed in.
func (env environment) signInIfNeeded(ctx context.Context, found awsconfig.Found) (bool, error) {
	if found.Profile.Setting(awsconfig.LoginSession) == "" || found.SDK.Credentials == nil {
		return false, nil
	}
	_, err := found.SDK.Credentials.Retrieve(ctx)
	return env.signInAfter(ctx, found, err)
}

// signInAfter signs in if there is a terminal and the error means that no one is signed in, or that
// the server has ended the sign-in. It reports whether it has signed in.
func (env environment) signInAfter(ctx context.Context, found awsconfig.Found, err error) (bool, error) {
	if err != nil && found.Profile.Overridden() && found.Profile.Exists() && isRejected(err) {
		return false, &exitError{awsconfig.ExitService, fmt.Errorf("%w\n(the access key is that of AWS_ACCESS_KEY_ID, which takes precedence over the profile %q: unset it, or give --profile %s)",
			awsconfig.Plainly(err), found.Profile.Name, found.Profile.Name)}
	}
	if !awsconfig.NeedsSignIn(found.Profile, err) && !hasEnded(found.Profile, err) {
		return false, nil
	}
	terminal, _, ttyErr := openTerminal()
	if ttyErr != nil {
		return false, &exitError{awsconfig.ExitConfiguration, fmt.Errorf("profile %q: no one is signed in, and there is no terminal to ask: run `daypass login --profile %s`", found.Profile.Name, found.Profile.Name)}
	}
	terminal.Close()
	fmt.Fprintf(env.stderr, "No one is signed in any more, in the profile %s.\n", quote.Terminal(found.Profile.Name))
	how := browserHere
	if os.Getenv("SSH_CONNECTION") != "" {
		how = codeToType
	}
	return true, env.signIn(ctx, found, how, "")
}

// needsSignIn reports whether the profile belongs to a person who has not signed in or whose sign-in has
// ended.
func needsSignIn(ctx context.Context, found awsconfig.Found) bool {
	if found.Profile.Setting(awsconfig.LoginSession) == "" || found.SDK.Credentials == nil {
		return false
	}
	_, err := found.SDK.Credentials.Retrieve(ctx)
	return awsconfig.NeedsSignIn(found.Profile, err)
}

// hasEnded reports whether the server rejects the keys of a sign-in. It was ended there, and nothing
// is refreshed any more; the keys from before, up to 15 minutes old, do not say so.
func hasEnded(p awsconfig.Profile, err error) bool {
	return err != nil && p.Setting(awsconfig.LoginSession) != "" && !p.Overridden() && isRejected(err)
}

// isRejected reports whether the server does not accept an access key.
func isRejected(err error) bool {
	var api *awsconfig.APIError
	return client.IsRejected(err) || errors.As(awsconfig.Explain(err), &api) && api.Code == "InvalidClientTokenId"
}
