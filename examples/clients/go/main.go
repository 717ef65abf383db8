// Two memories in, a search, a chat, and an error with its reason. Settings by environment: see README.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	ndml "ndml.example/client/gen/ndml/v1"
)

// A stream lasts as long as the answer: it gets so many times the deadline of a call.
const streamDeadlines = 6

type client struct {
	memory  ndml.MemoryServiceClient
	chat    ndml.ChatServiceClient
	scope   *ndml.Scope
	token   string
	timeout time.Duration
}

func main() {
	if err := run(); err != nil {
		code, reason, message, _ := explain(err)
		fmt.Fprintf(os.Stderr, "error: %s %s %s\n", code, reason, message)
		os.Exit(1)
	}
}

func run() error {
	timeout, err := time.ParseDuration(setting("NDML_TIMEOUT_S", "10") + "s")
	if err != nil {
		return fmt.Errorf("NDML_TIMEOUT_S is a number of seconds, for example 10: %w", err)
	}
	// WithInsecure and Dial stay throughout grpc-go 1.x and are all that Debian 12 has; with 1.63 and later write NewClient and insecure.NewCredentials().
	security := grpc.WithInsecure()
	if authorities := os.Getenv("NDML_CA"); authorities != "" {
		trust, err := credentials.NewClientTLSFromFile(authorities, "")
		if err != nil {
			return fmt.Errorf("NDML_CA is a PEM file of the authorities to trust: %w", err)
		}
		security = grpc.WithTransportCredentials(trust)
	}
	connection, err := grpc.Dial(setting("NDML_ADDRESS", "127.0.0.1:7700"), security)
	if err != nil {
		return err
	}
	defer connection.Close()
	c := &client{
		memory:  ndml.NewMemoryServiceClient(connection),
		chat:    ndml.NewChatServiceClient(connection),
		scope:   &ndml.Scope{User: setting("NDML_USER", "ann")},
		token:   os.Getenv("NDML_TOKEN"),
		timeout: timeout,
	}
	return c.converse()
}

func (c *client) converse() error {
	if _, err := c.add("lisbon", "I live in Lisbon."); err != nil {
		return err
	}
	seen, err := c.add("pixel", "My dog Pixel hates the vacuum cleaner.")
	if err != nil {
		return err
	}
	// With the token the search sees the write, whichever copy answers.
	found, err := c.search("Where do I live?", 2, seen)
	if err != nil {
		return err
	}
	for _, hit := range found.Hits {
		fmt.Printf("%.3f %s\n", hit.Score, hit.Trace.Text)
	}
	if err := c.ask("Where do I live?"); err != nil {
		return err
	}
	_, err = c.search("x", -1, "")
	code, reason, _, fields := explain(err)
	for _, broken := range fields {
		fmt.Printf("refused: %s %s %s: %s\n", code, reason, broken.Field, broken.Description)
	}
	return nil
}

// add stores a memory and returns its consistency token; the same requestID writes once.
func (c *client) add(requestID, text string) (string, error) {
	ctx, cancel := c.call(1)
	defer cancel()
	memory := &ndml.NewMemory{Scope: c.scope, Text: text}
	added, err := c.memory.AddMemory(ctx, &ndml.AddMemoryRequest{RequestId: requestID, Memory: memory})
	if err != nil {
		return "", err
	}
	fmt.Println("added", added.TraceId)
	return added.ConsistencyToken, nil
}

func (c *client) search(text string, k int32, token string) (*ndml.SearchMemoriesResponse, error) {
	ctx, cancel := c.call(1)
	defer cancel()
	query := &ndml.SearchMemoriesRequest_Text{Text: text}
	return c.memory.SearchMemories(ctx, &ndml.SearchMemoriesRequest{Scope: c.scope, Query: query, K: k, ConsistencyToken: token})
}

// ask prints the answer as it comes, and what it cites.
func (c *client) ask(question string) error {
	ctx, cancel := c.call(streamDeadlines)
	defer cancel()
	message := &ndml.ChatMessage{Role: ndml.Role_ROLE_USER, Content: question}
	answer, err := c.chat.Chat(ctx, &ndml.ChatRequest{Scope: c.scope, Messages: []*ndml.ChatMessage{message}})
	if err != nil {
		return err
	}
	fmt.Print("chat: ")
	var cited []*ndml.Citation
	for {
		part, err := answer.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		fmt.Print(part.Delta)
		cited = append(cited, part.Citations...)
	}
	fmt.Println()
	for _, citation := range cited {
		fmt.Printf("cited [%d] %s\n", citation.Number, citation.Text)
	}
	return nil
}

// call is the context of one call: its deadline, and who calls.
func (c *client) call(deadlines int) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(deadlines)*c.timeout)
	if c.token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+c.token)
	}
	return ctx, cancel
}

// explain takes an error apart: code, NDML's reason (empty where gRPC itself failed), message, broken fields.
func explain(err error) (codes.Code, string, string, []*errdetails.BadRequest_FieldViolation) {
	failed := status.Convert(err)
	reason, fields := "", []*errdetails.BadRequest_FieldViolation(nil)
	for _, detail := range failed.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			reason = detail.Reason
		case *errdetails.BadRequest:
			fields = detail.FieldViolations
		}
	}
	return failed.Code(), reason, failed.Message(), fields
}

func setting(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}
