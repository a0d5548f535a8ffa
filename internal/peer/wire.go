package peer

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// sessionsRequest asks for all sessions, or for the one with an identifier.
type sessionsRequest struct {
	ID string `json:"id,omitempty"`
}

type killRequest struct {
	ID string `json:"id"`
}

type cancelRequest struct {
	Request []byte `json:"request"`
}

type foundAnswer struct {
	Found bool `json:"found"`
}

const (
	// maxID bounds the identifier of a session, and maxCancel a cancel request: a process ID and
	// the longest cancel key.
	maxID     = 128
	maxCancel = 4 + 256
)

// handler answers the requests of peers.
func handler(service Service) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/sessions", func(w http.ResponseWriter, r *http.Request) {
		request, err := read[sessionsRequest](http.MaxBytesReader(w, r.Body, maxRequest))
		if err != nil || len(request.ID) > maxID {
			http.Error(w, "malformed", http.StatusBadRequest)
			return
		}
		answer(w, service.Sessions(request.ID))
	})
	mux.HandleFunc("POST /v1/kill", func(w http.ResponseWriter, r *http.Request) {
		request, err := read[killRequest](http.MaxBytesReader(w, r.Body, maxRequest))
		if err != nil || request.ID == "" || len(request.ID) > maxID {
			http.Error(w, "malformed", http.StatusBadRequest)
			return
		}
		answer(w, foundAnswer{service.Kill(request.ID)})
	})
	mux.HandleFunc("POST /v1/cancel", func(w http.ResponseWriter, r *http.Request) {
		request, err := read[cancelRequest](http.MaxBytesReader(w, r.Body, maxRequest))
		if err != nil || len(request.Request) > maxCancel {
			http.Error(w, "malformed", http.StatusBadRequest)
			return
		}
		answer(w, foundAnswer{service.Cancel(request.Request)})
	})
	return mux
}

// read reads one document. It ignores names that it does not know, because a later release may
// send more.
func read[T any](r io.Reader) (T, error) {
	var v T
	data, err := io.ReadAll(r)
	if err == nil {
		err = json.Unmarshal(data, &v)
	}
	return v, err
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // a peer that is gone needs no answer
}

func (c *Client) post(ctx context.Context, p Peer, what string, request any) ([]byte, error) {
	body, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, urlOf(p, what), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	response, err := c.http.Do(r)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, err
	case response.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s answered %s", p.ID, response.Status)
	case len(data) > maxAnswer:
		return nil, fmt.Errorf("%s answered more than %d bytes", p.ID, maxAnswer)
	}
	return data, nil
}

func (c *Client) ask(ctx context.Context, p Peer, what string, request, into any) error {
	data, err := c.post(ctx, p, what, request)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, into)
}
