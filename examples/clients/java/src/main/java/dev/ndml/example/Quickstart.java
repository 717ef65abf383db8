package dev.ndml.example;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.Status;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.StatusRuntimeException;
import io.grpc.netty.GrpcSslContexts;
import io.grpc.netty.NettyChannelBuilder;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.AbstractStub;
import io.grpc.stub.MetadataUtils;
import java.io.File;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import ndml.v1.Chat.ChatMessage;
import ndml.v1.Chat.ChatRequest;
import ndml.v1.Chat.ChatResponse;
import ndml.v1.Chat.Citation;
import ndml.v1.Chat.Role;
import ndml.v1.ChatServiceGrpc;
import ndml.v1.Memory.AddMemoryRequest;
import ndml.v1.Memory.AddMemoryResponse;
import ndml.v1.Memory.NewMemory;
import ndml.v1.Memory.SearchHit;
import ndml.v1.Memory.SearchMemoriesRequest;
import ndml.v1.Memory.SearchMemoriesResponse;
import ndml.v1.MemoryServiceGrpc;
import ndml.v1.Types.Scope;

/** Two memories in, a search, a chat, and an error with its reason. Settings by environment: see README.md. */
public final class Quickstart {
  /** A stream lasts as long as the answer: it gets so many times the deadline of a call. */
  private static final int STREAM_DEADLINES = 6;

  private final MemoryServiceGrpc.MemoryServiceBlockingStub memory;
  private final ChatServiceGrpc.ChatServiceBlockingStub chat;
  private final Scope scope;
  private final long timeoutMicros;

  private Quickstart(ManagedChannel channel, String token, String user, double timeoutSeconds) {
    memory = authorized(MemoryServiceGrpc.newBlockingStub(channel), token);
    chat = authorized(ChatServiceGrpc.newBlockingStub(channel), token);
    scope = Scope.newBuilder().setUser(user).build();
    timeoutMicros = (long) (timeoutSeconds * 1e6);
  }

  public static void main(String[] arguments) throws InterruptedException {
    ManagedChannel channel = null;
    try {
      channel = connect(setting("NDML_ADDRESS", "127.0.0.1:7700"), setting("NDML_CA", ""));
      double timeout = Double.parseDouble(setting("NDML_TIMEOUT_S", "10"));
      new Quickstart(channel, setting("NDML_TOKEN", ""), setting("NDML_USER", "ann"), timeout).converse();
    } catch (StatusRuntimeException error) {
      Explained why = explain(error);
      System.err.println("error: " + why.code + " " + why.reason + " " + why.message);
      System.exit(1);
    } catch (IOException | IllegalArgumentException error) {
      System.err.println("error: NDML_CA must be a PEM file, NDML_TIMEOUT_S a number of seconds: " + error.getMessage());
      System.exit(1);
    } catch (UnsupportedOperationException error) {
      System.err.println("error: this netty cannot speak TLS with ALPN, take a newer one: " + error.getMessage());
      System.exit(1);
    } finally {
      if (channel != null) {
        channel.shutdownNow().awaitTermination(5, TimeUnit.SECONDS);
      }
    }
  }

  private static ManagedChannel connect(String address, String authorities) throws IOException {
    NettyChannelBuilder builder = NettyChannelBuilder.forTarget(address);
    if (authorities.isEmpty()) {
      return builder.usePlaintext().build();
    }
    return builder.sslContext(GrpcSslContexts.forClient().trustManager(new File(authorities)).build()).build();
  }

  private void converse() {
    add("lisbon", "I live in Lisbon.");
    AddMemoryResponse dog = add("pixel", "My dog Pixel hates the vacuum cleaner.");
    for (SearchHit hit : search("Where do I live?", 2, dog.getConsistencyToken()).getHitsList()) {
      System.out.printf("%.3f %s%n", hit.getScore(), hit.getTrace().getText());
    }
    ask("Where do I live?");
    try {
      search("x", -1, "");
    } catch (StatusRuntimeException error) {
      Explained why = explain(error);
      for (BadRequest.FieldViolation field : why.fields) {
        System.out.println("refused: " + why.code + " " + why.reason + " " + field.getField() + ": " + field.getDescription());
      }
    }
  }

  /** Stores a memory; the same requestId writes once. */
  private AddMemoryResponse add(String requestId, String text) {
    NewMemory remembered = NewMemory.newBuilder().setScope(scope).setText(text).build();
    AddMemoryResponse added =
        memory
            .withDeadlineAfter(timeoutMicros, TimeUnit.MICROSECONDS)
            .addMemory(AddMemoryRequest.newBuilder().setRequestId(requestId).setMemory(remembered).build());
    System.out.println("added " + added.getTraceId());
    return added;
  }

  /** With a write's token the search sees that write, whichever copy answers. */
  private SearchMemoriesResponse search(String text, int k, String token) {
    SearchMemoriesRequest request =
        SearchMemoriesRequest.newBuilder().setScope(scope).setText(text).setK(k).setConsistencyToken(token).build();
    return memory.withDeadlineAfter(timeoutMicros, TimeUnit.MICROSECONDS).searchMemories(request);
  }

  /** Prints the answer as it comes, and what it cites. */
  private void ask(String question) {
    ChatMessage message = ChatMessage.newBuilder().setRole(Role.ROLE_USER).setContent(question).build();
    ChatRequest request = ChatRequest.newBuilder().setScope(scope).addMessages(message).build();
    List<Citation> cited = new ArrayList<>();
    System.out.print("chat: ");
    var answer = chat.withDeadlineAfter(STREAM_DEADLINES * timeoutMicros, TimeUnit.MICROSECONDS).chat(request);
    while (answer.hasNext()) {
      ChatResponse part = answer.next();
      System.out.print(part.getDelta());
      System.out.flush();
      cited.addAll(part.getCitationsList());
    }
    System.out.println();
    for (Citation citation : cited) {
      System.out.println("cited [" + citation.getNumber() + "] " + citation.getText());
    }
  }

  private static <S extends AbstractStub<S>> S authorized(S stub, String token) {
    if (token.isEmpty()) {
      return stub;
    }
    Metadata headers = new Metadata();
    headers.put(Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER), "Bearer " + token);
    return stub.withInterceptors(MetadataUtils.newAttachHeadersInterceptor(headers));
  }

  /** A failed call taken apart; reason is empty where gRPC itself failed. */
  private static final class Explained {
    private String code = "";
    private String reason = "";
    private String message = "";
    private List<BadRequest.FieldViolation> fields = List.of();
  }

  private static Explained explain(StatusRuntimeException error) {
    Explained why = new Explained();
    why.code = error.getStatus().getCode().name();
    why.message = String.valueOf(error.getStatus().getDescription());
    Status status = StatusProto.fromThrowable(error);
    try {
      for (Any detail : status.getDetailsList()) {
        if (detail.is(ErrorInfo.class)) {
          why.reason = detail.unpack(ErrorInfo.class).getReason();
        } else if (detail.is(BadRequest.class)) {
          why.fields = detail.unpack(BadRequest.class).getFieldViolationsList();
        }
      }
    } catch (InvalidProtocolBufferException broken) {
      throw new IllegalStateException("the server's error details are not what their type says", broken);
    }
    return why;
  }

  private static String setting(String name, String otherwise) {
    String value = System.getenv(name);
    return value == null || value.isEmpty() ? otherwise : value;
  }
}
