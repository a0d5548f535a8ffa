package main

import "context"

func (d *dev) serve(ctx context.Context, cfg *config, ready func()) error {
	ready()
	<-ctx.Done()
	return nil
}
