// Program is a small program that calls an API with a token.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/seed-5bfa0880/clientcredentials"
)

func main() {
	if len(os.Args) != 2 {
		return // The benchmarks measure what happens before main.
	}
	conf := &clientcredentials.Config{
		ClientID:     os.Getenv("CLIENT_ID"),
		ClientSecret: os.Getenv("CLIENT_SECRET"),
		TokenURL:     os.Getenv("TOKEN_URL"),
	}
	resp, err := conf.Client(context.Background()).Get(os.Args[1])
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	defer resp.Body.Close()
	fmt.Println(resp.Status)
}
