module ndml.example/client

go 1.19
