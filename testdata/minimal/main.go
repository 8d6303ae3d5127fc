// Minimal is the smallest program that uses the library.
package main

import (
	"context"

	"github.com/seed-5bfa0880/clientcredentials"
)

func main() { _ = new(clientcredentials.Config).Client(context.Background()) }
